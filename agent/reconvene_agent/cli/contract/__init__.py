"""The wire contract as data: every channel with its messages, as JSON Schemas, and as one AsyncAPI document."""
