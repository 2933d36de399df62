"""Candidates on paper, their measured latency, and the search for the lowest sparsity that fits."""
