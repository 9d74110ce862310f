"""`python -m pipelines`."""

from cosyflow.beginning import listen

if __name__ == "__main__":
    listen()
    from pipelines.commands import main

    raise SystemExit(main())
