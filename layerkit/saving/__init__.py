"""Saving and loading: snapshots, parameters in other formats, and copies of nets."""
