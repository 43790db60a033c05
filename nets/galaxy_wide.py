"""The galaxy model of nets/galaxy_gdae.py with more latent dimensions, units and layers.

z ~ N(0, I)                                 a galaxy's latent description
x | z ~ N(f_mu(z), diag f_Sigma(z))         its picture
q(z | x) = N(g_mu(x), diag g_Sigma(x))      what a picture says of z
"""

from layerkit import layers as L


def galaxy_wide(pixels=69 * 69, hidden=256, depth=3, latent=16, log_variance=-5.0, kl_weight=1.0):
    """Return the paper's net, made larger.

    Args:
        pixels: number of pixels of a picture.
        hidden: units of each hidden layer; the paper has 128.
        depth: hidden layers of g, and of f; the paper has 2.
        latent: dimensions of z; the paper has 8.
        log_variance: of every pixel at the start of training.
        kl_weight: weight of the KL term; 1 is the bound's.
    """

    def stack(letter, bottom):
        """Hidden layers letter1, letter2, ... above a blob."""
        bottoms = [bottom, *(f"{letter}{i + 1}" for i in range(depth - 1))]
        return [
            L.Dense(f"{letter}{i + 1}", below, units=hidden, neuron="relu")
            for i, below in enumerate(bottoms)
        ]

    return [
        L.Input("x", shape=(pixels,)),
        # g: what the picture says of z
        *stack("g", "x"),
        L.Dense("z_mean", f"g{depth}", units=latent),
        L.Dense("z_log_variance", f"g{depth}", units=latent),
        # one sample of q(z | x), through which gradients flow
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        # f: the picture that z describes
        *stack("f", "z"),
        L.Dense("x_mean", f"f{depth}", units=pixels, weight=0.0),
        L.Dense("x_log_variance", f"f{depth}", units=pixels, weight=0.0, bias=log_variance),
        # the bound, with its sign turned: -E_q[log p(x | z)] + KL(q || p)
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance", weight=kl_weight),
    ]
