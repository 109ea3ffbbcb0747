"""python -m experiments: what can be run from a checkout."""

import sys


def main() -> None:
    """Parse the command line and run what it names; what does not fit is said in one line."""
    from experiments import command_line

    sys.exit(command_line.main())


if __name__ == "__main__":
    main()
