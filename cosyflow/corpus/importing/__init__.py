"""Corpora as people have them, made into Kaldi folders: one module for each layout, and one table of them."""
