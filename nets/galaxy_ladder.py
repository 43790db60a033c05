"""A galaxy model with two stochastic layers: z describes a galaxy in outline, h in detail.

    z ~ N(0, I)                                         as in nets/galaxy_gdae.py
    h | z ~ N(p_mu(z), diag p_Sigma(z))                 a learned Gaussian
    x | h ~ N(f_mu(h), diag f_Sigma(h))                 the picture
    q(z | x) = N(g_mu(x), diag g_Sigma(x))              what a picture says of z,
    q(h | x, z) = N(p_mu + d_mu, diag p_Sigma d_Sigma)  and, once z is known, of h

q shares p's network of z and adds what the picture says beyond it, d(x, z), which starts at nothing
(d_mu = 0, d_Sigma = 1).  Training maximises
E_q[log p(x | h)] - KL(q(h | x, z) || p(h | z)) - KL(q(z | x) || p(z)).

The layer "kl_h" names the prior p(h | z), from which GalaxyModel draws h where there is no picture.

Source: Sonderby et al. (2016), Ladder variational autoencoders (a q that goes down the layers of p
and shares them); Vahdat and Kautz (2020), section 3.2 (the residual form of q).
"""

from layerkit import layers as L


def galaxy_ladder(
    pixels=69 * 69, hidden=128, latent=8, detail=24, log_variance=-5.0, kl_weight=1.0
):
    """Return a net with two stochastic layers.

    Args:
        pixels: number of pixels of a picture.
        hidden: units of each hidden layer.
        latent: dimensions of z.
        detail: dimensions of h.
        log_variance: of every pixel at the start of training.
        kl_weight: weight of both KL terms; 1 is the bound's.
    """
    return [
        L.Input("x", shape=(pixels,)),
        # g: what the picture says of z
        L.Dense("g1", "x", units=hidden, neuron="relu"),
        L.Dense("g2", "g1", units=hidden, neuron="relu"),
        L.Dense("z_mean", "g2", units=latent),
        L.Dense("z_log_variance", "g2", units=latent),
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        # p(h | z)
        L.Dense("p1", "z", units=hidden, neuron="relu"),
        L.Dense("p_mean", "p1", units=detail),
        L.Dense("p_log_variance", "p1", units=detail),
        # q(h | x, z): p(h | z), moved and scaled by what the picture says beyond z
        L.Concat("g1_p1", "g1", "p1"),
        L.Dense("d1", "g1_p1", units=hidden, neuron="relu"),
        L.Dense("d_mean", "d1", units=detail, weight=0.0),
        L.Dense("d_log_variance", "d1", units=detail, weight=0.0),
        L.Add("h_mean", "p_mean", "d_mean"),
        L.Add("h_log_variance", "p_log_variance", "d_log_variance"),
        L.Reparameterize("h", "h_mean", "h_log_variance"),
        # f: the picture that h describes
        L.Dense("f1", "h", units=hidden, neuron="relu"),
        L.Dense("f2", "f1", units=hidden, neuron="relu"),
        L.Dense("x_mean", "f2", units=pixels, weight=0.0),
        L.Dense("x_log_variance", "f2", units=pixels, weight=0.0, bias=log_variance),
        # the bound, with its sign turned
        L.GaussianReconstruction("reconstruction", "x", "x_mean", "x_log_variance"),
        L.GaussianKL(
            "kl_h", "h_mean", "h_log_variance", "p_mean", "p_log_variance", weight=kl_weight
        ),
        L.GaussianKL("kl", "z_mean", "z_log_variance", weight=kl_weight),
    ]
