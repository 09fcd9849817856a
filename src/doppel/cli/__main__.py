"""``python -m doppel.cli``: the same as the command ``doppel``."""

import sys

from doppel.cli import main

if __name__ == "__main__":
    sys.exit(main())
