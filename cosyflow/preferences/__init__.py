"""Makes pairs for preference training: speech of a reference model that is worse than what was recorded."""
