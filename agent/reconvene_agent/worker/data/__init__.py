"""Local data: found, decoded, split into training and held-out parts, normalised. They never leave the board."""
