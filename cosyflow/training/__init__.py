"""One training loop for every model; `python -m cosyflow.training` is one process of it.

This package needs torch, transformers and numpy; what only reports (TensorBoard, MLflow) is imported when it is used.
"""
