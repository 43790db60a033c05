"""The generalised denoising autoencoder of Regier, McAuliffe and Prabhat (2015), section 3.1.

    z ~ N(0, I)                                 a galaxy's latent description, 8 numbers
    x | z ~ N(f_mu(z), diag f_Sigma(z))         its picture, 69 x 69 pixels
    q(z | x) = N(g_mu(x), diag g_Sigma(x))      what a picture says of z

g and f are networks with two hidden layers of 128 rectified linear units each.  Exponentials make
the variances positive: layers called *_log_variance are exponentiated by the layers that use them.
Training maximises E_q[log p(x | z)] - KL(q || p), with one sample of z for each picture.
"""

from layerkit import layers as L


def galaxy_gdae(pixels=69 * 69, hidden=128, latent=8, log_variance=-5.0, kl_weight=1.0):
    """Return the paper's net.

    Args:
        pixels: number of pixels of a picture.
        hidden: units of each hidden layer.
        latent: dimensions of z.
        log_variance: of every pixel at the start of training.
        kl_weight: weight of the KL term; 1 is the paper's.
    """
    return [
        L.Input("x", shape=(pixels,)),
        # g: what the picture says of z
        L.Dense("g1", "x", units=hidden, neuron="relu"),
        L.Dense("g2", "g1", units=hidden, neuron="relu"),
        L.Dense("z_mean", "g2", units=latent),
        L.Dense("z_log_variance", "g2", units=latent),
        # one sample of q(z | x), through which gradients flow
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        # f: the picture that z describes
        L.Dense("f1", "z", units=hidden, neuron="relu"),
        L.Dense("f2", "f1", units=hidden, neuron="relu"),
        L.Dense("x_mean", "f2", units=pixels, weight=0.0),
        L.Dense("x_log_variance", "f2", units=pixels, weight=0.0, bias=log_variance),
        # the bound, with its sign turned: -E_q[log p(x | z)] + KL(q || p)
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance", weight=kl_weight),
    ]
