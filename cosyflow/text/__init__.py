"""Text to token ids, with the vocabularies of the CosyVoice models."""
