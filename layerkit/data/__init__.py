"""Order, augmentation and staging of data sets; the data layers are in layerkit.layers."""
