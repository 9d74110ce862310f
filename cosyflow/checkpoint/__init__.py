"""Checkpoints: read, written, chosen and converted here for training, averaging, export and inspection.

`files` reads and writes files of tensors; `forms`, `folders` and `zero_folder` take weights out of what other trainers
write; `official` fits a model's official weights; `folder` lists what a training's folder holds; `state` and `writer`
are what an exact resume needs; `select` chooses, and `describe` shows one to a reader.
"""
