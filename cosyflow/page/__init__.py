"""One self-contained HTML page of a run: what was trained on what, how it sounds, and whether it may be used."""
