"""What things are: values, their rules and their names.

No threads, sockets, processes or heavy imports live here, so both the daemon and the worker can share it.
"""
