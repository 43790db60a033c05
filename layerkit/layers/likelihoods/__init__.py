"""Terms of a bound on log p(x): likelihoods of pixels, and the KL divergence."""
