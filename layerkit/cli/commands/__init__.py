"""Commands of `layerkit`, one file each: `add` describes one, `run` does it."""
