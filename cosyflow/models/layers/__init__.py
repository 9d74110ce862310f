"""Layers that several versions share."""
