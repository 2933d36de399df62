"""The parts of ``benchmarks/accuracy_latency.py``: arms, training, measuring, results, table and plot."""
