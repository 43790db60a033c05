"""Engines: how a net runs.  Layers say what is computed, and know nothing of what is here."""
