"""A training run as a PyTorchJob of Kubeflow's training operator: written, sent, followed to its end, started again."""
