"""Local images: found, decoded, split into training and held-out parts. They never leave the board."""
