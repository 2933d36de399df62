"""The shapes of what the agent publishes (docs/mqtt.md). Later versions add fields; none is renamed or changes its type."""
