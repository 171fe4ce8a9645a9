"""Settings that check themselves, and runs by name."""
