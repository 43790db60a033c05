"""The light of a galaxy in the model of a field, before the PSF: a sum of round Gaussians.

    z ~ N(0, I)                                      what kind of galaxy, 3 numbers
    light(k) = sum_j w_j exp(-s_j^2 k^2 / 2)         its Fourier transform, w = softmax(f(z))

f has one hidden layer of tanh.  The light is nowhere negative and of unit flux.  Whoever draws it
scales it to unit half-light radius, and then to size, axis ratio and angle; the s_j are
`layerkit.galaxy.scene.model.learned.spreads`.

A picture is linear in w, so all that its pixels say of w is two arrays: with B_j the picture of
flux, PSF and Gaussian j, A = sum of B_j B_k / variance over pixels and b that of B_j x / variance,

    -log p(x | w) = w^T A w / 2 - b^T w + constant = |root w - target|^2 / 2 + constant

where A = root^T root, root^T target = b.  This is the loss; how A and b are had from stamps, each
with its own PSF and noise, is `layerkit.galaxy.scene.inference.learning`.

Source: Cappellari (2002), "Efficient multi-Gaussian expansion of galaxies", for the sum.
"""

from layerkit import layers as L


def galaxy_profile(latent=3, hidden=24, gaussians=10):
    """Return the net from z to the weights of Gaussians.

    Args:
        latent: dimensions of z.
        hidden: units of the hidden layer.
        gaussians: how many are summed.
    """
    return [
        L.Input("z", shape=(latent,)),
        L.Input("root", shape=(gaussians, gaussians)),
        L.Input("target", shape=(gaussians, 1)),
        L.Dense("f1", "z", units=hidden, neuron="tanh"),
        L.Dense("logits", "f1", units=gaussians),
        L.Softmax("weights", "logits"),
        L.Reshape("column", "weights", shape=(gaussians, 1)),
        L.MatMul("product", "root", "column"),
        L.SquareLoss("loss", "product", "target"),
    ]
