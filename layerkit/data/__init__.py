"""How data sets are put in order and augmented; the data layers are in layerkit.layers."""
