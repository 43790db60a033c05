"""Pictures of the sky: light of unit sum, put at places between pixels, and blurred by a PSF."""
