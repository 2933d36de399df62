"""The life of commands, from a message to its end, and of the jobs among them. Pure."""
