"""Fixtures shared by the tests of galaxy models."""

import pytest
from small_galaxy_nets import one_stochastic_layer, two_stochastic_layers


@pytest.fixture
def net(rng):
    return one_stochastic_layer(rng)


@pytest.fixture
def ladder(rng):
    return two_stochastic_layers(rng)
