"""Language models: text tokens in, speech tokens out."""
