"""Speaker embeddings and speech tokens of a corpus, as resumable ONNX Runtime jobs."""
