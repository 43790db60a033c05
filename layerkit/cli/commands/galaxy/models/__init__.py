"""Commands for the model of a finished run; see layerkit.cli.commands.galaxy."""
