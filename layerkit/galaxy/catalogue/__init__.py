"""Catalogues: pictures encoded by a trained model, one row of a table for each."""
