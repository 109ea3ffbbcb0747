"""python -m theory: the theory of decentralised methods on the command line."""

import sys

from theory.cli import main

if __name__ == "__main__":
    sys.exit(main())
