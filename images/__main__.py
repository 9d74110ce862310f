"""`python -m images`."""

from cosyflow.beginning import listen

if __name__ == "__main__":
    listen()
    from images.command import main

    raise SystemExit(main())
