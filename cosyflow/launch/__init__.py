"""Runs a training command, here or as a job of a cluster, and reports how it ended."""
