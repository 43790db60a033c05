"""Models to compare with: Gaussian and Sersic profiles, and PCA."""
