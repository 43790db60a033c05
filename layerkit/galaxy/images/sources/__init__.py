"""Sets of pictures: folders, zips, single files and the built-in Hubble picture."""
