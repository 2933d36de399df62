"""Training of the small model: the loop, its schedule, its random changes of images, and its checkpoints."""
