"""Commands for any net; see layerkit.cli.main."""
