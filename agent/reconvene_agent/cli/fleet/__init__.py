"""A controller of many agents, for operators: what devices say, commands to them, and rollouts in waves."""
