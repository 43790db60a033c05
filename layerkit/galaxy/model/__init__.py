"""The learned model of galaxy images: encoding, decoding, bounds and samples."""
