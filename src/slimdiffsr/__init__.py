"""Super-resolution of satellite and aerial imagery: whole georeferenced scenes, one command."""
