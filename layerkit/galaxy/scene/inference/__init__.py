"""Fitting the model of a field: one net for all sources, and the choice of what they are."""
