"""Losses and metrics: classes, distances and margins."""
