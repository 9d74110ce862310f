"""What is wired to what. `python -m pipelines compile|run|submit|demo`."""
