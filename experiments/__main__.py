"""python -m experiments: what can be run from a checkout."""

from experiments import quickstart


def main() -> None:
    """Parse the command line and run what it names."""
    import tyro

    tyro.extras.subcommand_cli_from_dict({"quickstart": quickstart.main}, prog="python -m experiments")


if __name__ == "__main__":
    main()
