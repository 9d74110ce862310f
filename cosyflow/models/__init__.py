"""The models of CosyVoice 1, 2 and 3; their state dicts have the keys of the official checkpoints.

This package needs torch and numpy only.
"""
