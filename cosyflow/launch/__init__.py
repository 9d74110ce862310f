"""Runs a training command and tells the truth about how it ended."""
