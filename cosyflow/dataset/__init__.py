"""Training data: parquet shards and their lists, the index over them, filters, epoch plans and the reader."""
