"""What the board's state means: when it may not work, what fills up or slows down, whether the model still fits. Pure."""
