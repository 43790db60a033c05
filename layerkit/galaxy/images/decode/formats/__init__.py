"""The supported file formats, one module each."""
