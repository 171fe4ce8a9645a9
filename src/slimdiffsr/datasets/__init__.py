"""Image files and the trees of published data sets."""
