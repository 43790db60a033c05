"""The galaxy model of nets/galaxy_gdae.py with g and f made of convolutions.

    z ~ N(0, I)                                 a galaxy's latent description
    x | z ~ N(f_mu(z), diag f_Sigma(z))         its picture, side x side pixels
    q(z | x) = N(g_mu(x), diag g_Sigma(x))      what a picture says of z

Each convolution of g halves the height and width of the picture, 69 -> 35 -> 18 -> 9, and each
transposed convolution of f doubles them again, as in Radford et al. (2016), section 3.
"""

from layerkit import layers as L


def galaxy_conv(
    side=69, channels=(16, 32, 64), kernel=5, hidden=128, latent=8, log_variance=-5.0, kl_weight=1.0
):
    """Return a convolutional net.

    Args:
        side: height and width of a picture in pixels.
        channels: of each convolution of g, and in reverse order of f.
        kernel: height and width of their windows, an odd number of pixels.
        hidden: units of the hidden layer between the convolutions and z.
        latent: dimensions of z.
        log_variance: of every pixel at the start of training.
        kl_weight: weight of the KL term; 1 is the bound's.
    """
    window = {"kernel": kernel, "stride": 2, "pad": kernel // 2}
    sizes = [side]  # of the picture before and after each convolution
    for _ in channels:
        sizes.append((sizes[-1] + 1) // 2)
    last, smallest = len(channels), (channels[-1], sizes[-1], sizes[-1])

    # g: what the picture says of z
    layers = [L.Input("x", shape=(side * side,)), L.Reshape("g0", "x", shape=(1, side, side))]
    for i, count in enumerate(channels):
        layers.append(L.Convolution(f"g{i + 1}", f"g{i}", channels=count, **window, neuron="relu"))
    layers += [
        L.Dense("g_hidden", f"g{last}", units=hidden, neuron="relu"),
        L.Dense("z_mean", "g_hidden", units=latent),
        L.Dense("z_log_variance", "g_hidden", units=latent),
        # one sample of q(z | x), through which gradients flow
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        # f: the picture that z describes
        L.Dense("f_hidden", "z", units=hidden, neuron="relu"),
        L.Dense("f_flat", "f_hidden", units=channels[-1] * sizes[-1] ** 2, neuron="relu"),
        L.Reshape(f"f{last}", "f_flat", shape=smallest),
    ]
    for i in range(last - 1, 0, -1):
        layers.append(
            L.Deconvolution(
                f"f{i}",
                f"f{i + 1}",
                channels=channels[i - 1],
                **window,
                shape=(sizes[i], sizes[i]),
                neuron="relu",
            )
        )
    picture = {"channels": 1, **window, "shape": (side, side), "weight": 0.0}
    return [
        *layers,
        L.Deconvolution("mean_picture", "f1", **picture),
        L.Deconvolution("log_variance_picture", "f1", **picture, bias=log_variance),
        L.Reshape("x_mean", "mean_picture", shape=(side * side,)),
        L.Reshape("x_log_variance", "log_variance_picture", shape=(side * side,)),
        # the bound, with its sign turned: -E_q[log p(x | z)] + KL(q || p)
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
        L.GaussianKL("kl", "z_mean", "z_log_variance", weight=kl_weight),
    ]
