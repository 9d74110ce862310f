"""Runs that are declared in Git: one for each content, decided by one pure function."""
