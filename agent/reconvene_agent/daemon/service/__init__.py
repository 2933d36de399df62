"""The daemon's process: its loop and the queue into it, what carries out effects, its log, its local socket, systemd."""
