"""Photometry: fluxes of pictures in physical units, with their errors."""
