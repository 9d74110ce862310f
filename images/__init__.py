"""The container images: their Dockerfiles, and the program that builds them (`python -m images`)."""
