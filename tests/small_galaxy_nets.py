"""Small nets of galaxy models, with parameters far from where they start."""

import layerkit as lk

SIDE, LATENT, DETAIL = 12, 3, 4


def one_stochastic_layer(rng):
    """The paper's net, small."""
    layers = lk.load_net("nets/galaxy_gdae.py", pixels=SIDE * SIDE, hidden=7, latent=LATENT)
    net = lk.Net(layers, batch_size=5, phase="test", dtype="float64", seed=int(rng.integers(1e9)))
    for p in net.params.values():
        p.data += 0.2 * rng.standard_normal(p.shape)
    return net


def two_stochastic_layers(rng):
    """A net with a lower latent layer h below z."""
    layers = lk.load_net(
        "nets/galaxy_ladder.py", pixels=SIDE * SIDE, hidden=7, latent=LATENT, detail=DETAIL
    )
    net = lk.Net(layers, batch_size=5, phase="test", dtype="float64", seed=int(rng.integers(1e9)))
    for p in net.params.values():  # not larger, or a log-variance now and then is thousands
        p.data *= 0.5
        p.data += 0.2 * rng.standard_normal(p.shape)
    return net
