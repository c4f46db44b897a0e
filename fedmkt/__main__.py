"""`python -m fedmkt` does what the console script does."""

import sys

from fedmkt.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
