"""``python -m slimdiffsr``, and the console command."""

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; Ctrl-C while it is being loaded is no traceback."""
    asked = False

    def remember(*_: object) -> None:
        # Raised inside an import, KeyboardInterrupt would be a traceback, or swallowed.
        nonlocal asked
        asked = True

    before = signal.signal(signal.SIGINT, remember)
    from slimdiffsr.cli import main as run

    signal.signal(signal.SIGINT, before)
    if asked:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
