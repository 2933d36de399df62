"""Helpers for tests: builders of values, brokers, disks, workers and daemons to order."""
