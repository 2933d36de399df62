"""Dense models, their initial weights, and what a model costs."""
