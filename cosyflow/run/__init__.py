"""What a run is: its settings, its stages, and what names their work."""
