"""The way to the broker: the connection, what leaves by it, and short visits."""
