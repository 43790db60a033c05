"""Roles of blobs: found in nets that are galaxy models, and refused in others."""

import numpy as np
import pytest

import layerkit as lk
from layerkit import galaxy
from layerkit import layers as L
from layerkit.errors import NetError
from layerkit.galaxy.model.roles import find_roles


def test_roles_of_the_papers_net(net):
    roles = find_roles(net)
    assert (roles.x, roles.pixel_outputs) == ("x", ["x_mean", "x_log_variance"])
    assert (roles.z, roles.z_mean, roles.z_log_variance) == ("z", "z_mean", "z_log_variance")
    assert roles.likelihood is net.layers["reconstruction"]
    assert (roles.bound_terms, roles.priors) == (["reconstruction", "kl"], {})


def test_roles_of_a_net_with_a_lower_latent_layer(ladder):
    roles = find_roles(ladder)
    assert roles.z == "z"
    assert roles.priors == {"h": ["p_mean", "p_log_variance"]}
    assert set(roles.bound_terms[1:]) == {"kl", "kl_h"}


def test_roles_of_a_net_with_skew(rng):
    net = lk.Net(lk.load_net("nets/galaxy_pose.py", side=12, hidden=5), 2, phase="test")
    x_mean, x_log_variance, skew = find_roles(net).pixel_outputs
    model = galaxy.GalaxyModel(net)
    z = rng.standard_normal((3, model.latent))
    means, variances = model.decode(z)
    np.testing.assert_array_equal(means, net.infer(x_mean, z=z).reshape(3, -1))
    floor = net.layers[model.roles.likelihood.name].floor
    expected = np.exp(net.infer(x_log_variance, z=z).reshape(3, -1)) + floor
    np.testing.assert_allclose(variances, expected)
    assert net.blobs[skew].shape == net.blobs[x_mean].shape


def replaced(name, by):
    layers = lk.load_net("nets/galaxy_ladder.py", pixels=9, hidden=3)
    return [x for x in layers if x.name != name] + by


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (lambda: replaced("kl_h", []), "layer 'h' .*'h_mean', 'h_log_variance'.* there are 0"),
        (
            lambda: replaced(
                "kl",
                [
                    L.Input("m", shape=(8,)),
                    L.GaussianKL("kl", "z_mean", "z_log_variance", "m", "m"),
                ],
            ),
            r"layer 'z' .*must be N\(0, I\)",
        ),
        (
            lambda: replaced("f1", [L.Concat("h_x", "h", "x"), L.Dense("f1", "h_x", units=3)]),
            "nothing else: .*'x' is needed",
        ),
        (
            lambda: replaced("p1", [L.Concat("z_x", "z", "x"), L.Dense("p1", "z_x", units=3)]),
            "nothing else: .*'x' is needed",
        ),
    ],
)
def test_latent_layers_without_a_proper_prior_are_refused(layers, says):
    with pytest.raises(NetError, match=says):
        galaxy.GalaxyModel(lk.Net(layers(), phase="test"))


def test_a_net_that_is_no_galaxy_model_is_refused():
    net = lk.Net([L.Input("x", shape=(3,)), L.ReLU("y", "x")], phase="test")
    with pytest.raises(NetError, match="GaussianReconstruction"):
        galaxy.GalaxyModel(net)
