"""Follows a training job of any kind through its attempts to its end."""
