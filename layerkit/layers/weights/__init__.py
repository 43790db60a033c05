"""Layers with weights: dense, tied, embeddings, recurrent, and normalisation."""
