"""``python -m slimdiffsr``."""

from slimdiffsr.cli import main

main()
