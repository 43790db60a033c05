"""The `layerkit` command."""
