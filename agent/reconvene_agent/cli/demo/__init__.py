"""The demo: an embedded broker, a real agent, a small controller, and real digits, all on this machine."""
