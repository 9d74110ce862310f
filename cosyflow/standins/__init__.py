"""Small models and a small corpus for machines without the official files."""
