"""The one training loop: data, state, stopping."""
