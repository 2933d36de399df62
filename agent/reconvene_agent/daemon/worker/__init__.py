"""The worker seen from outside: what it is asked, its process, its limits, and what its end means."""
