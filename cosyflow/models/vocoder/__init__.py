"""The HiFT vocoder of CosyVoice 1, 2 and 3 and its adversarial training."""
