"""Latent coverage: z's scatter over redrawn noise, beside its posterior's standard deviation."""
