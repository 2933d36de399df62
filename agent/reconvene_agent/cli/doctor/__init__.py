"""``doctor``: looks at everything that the agent needs on this board, and says what to do about what is not right."""
