"""The command line: parses and prints. The work is done by the daemon or by a worker process."""
