"""How a network is run: one tile batch in, one out, on the device where both lie."""
