"""`python -m cosyflow` is the command `cosyflow`."""

from cosyflow.beginning import listen


def main() -> int:
    """Runs the command of this process; its exit status."""
    listen()
    from cosyflow.cli.main import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
