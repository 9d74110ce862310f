"""`torchrun ... -m cosyflow.training OPTIONS`."""

from cosyflow.beginning import listen

if __name__ == "__main__":
    listen()
    from cosyflow.training.process import main

    main()
