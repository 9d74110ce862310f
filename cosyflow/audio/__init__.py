"""Decoding, resampling and the acoustic features of the CosyVoice models."""
