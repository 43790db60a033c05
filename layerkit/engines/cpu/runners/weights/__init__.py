"""Runners of layers with weights."""
