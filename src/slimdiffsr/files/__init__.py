"""What lies on disk: weights, where they come from, how they are loaded."""
