"""From checkpoints to a model that others use: averaging, export, registration."""
