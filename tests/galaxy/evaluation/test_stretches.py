"""Held-out images measured in stretches, by workers or not: equal numbers, each image once."""

import math
import pickle

import numpy as np
import pytest
from small_galaxy_nets import SIDE, one_stochastic_layer, two_stochastic_layers

from layerkit import galaxy
from layerkit.errors import DataError
from layerkit.galaxy.evaluation import stretches
from layerkit.galaxy.evaluation.comparison import Reconstructions
from layerkit.galaxy.images.parts import working
from layerkit.galaxy.model.posterior import refinement


def arrays(thing):
    """Return the arrays in a result by path."""
    if isinstance(thing, np.ndarray):
        return {"": thing}
    found = thing._asdict() if isinstance(thing, tuple) else vars(thing)
    return {f"{k}/{p}": a for k, v in found.items() if k != "first" for p, a in arrays(v).items()}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Small batches, and profiles that need no fit."""
    for module in (refinement, stretches):
        monkeypatch.setattr(module, "BATCH", 3)

    def fit(images, progress, floor):
        mean = images.mean(axis=(1, 2))
        return tuple(Reconstructions(images * k, k * mean, mean) for k in (0.5, 0.6))

    monkeypatch.setattr(stretches, "fit_profiles", fit)


@pytest.mark.parametrize("make", [one_stochastic_layer, two_stochastic_layers])
def test_stretches_together_are_the_whole(make, rng):
    model = galaxy.GalaxyModel(make(rng))  # of batches of 5
    images = rng.random((37, SIDE, SIDE))
    whole = arrays(stretches.measure(model, images, 0, 37, 2, 3, False))
    size = math.lcm(3, 5)
    for order in ([0, 15, 30], [30, 0, 15]):
        parts = [stretches.measure(model, images[k : k + size], k, 37, 2, 3, False) for k in order]
        parts = [arrays(one) for one in sorted(parts, key=lambda one: one.first)]
        for name, values in whole.items():
            np.testing.assert_array_equal(
                np.concatenate([part[name] for part in parts]), values, err_msg=name
            )


def test_workers_find_what_one_process_finds(rng):
    distributed = pytest.importorskip("dask.distributed", reason="pip install 'layerkit[dask]'")
    model = galaxy.GalaxyModel(one_stochastic_layer(rng))  # of batches of 5
    train, held_out = rng.random((20, SIDE, SIDE)), rng.random((37, SIDE, SIDE))
    one = galaxy.evaluate(model, train, held_out, False, 3, 2)
    with distributed.LocalCluster(  # of threads here, for which the fixture holds
        1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        two = galaxy.evaluate(
            model, train, held_out, False, 3, 2, scheduler=cluster.scheduler_address
        )
    assert one.metrics() == two.metrics()
    assert len(two.encoded_bound) == 37
    np.testing.assert_array_equal(two.importance.held_out, one.importance.held_out)


def test_plain_processes_share_the_stretches(rng, monkeypatch):
    asked = []

    def by_processes(name, work, jobs, workers, again):  # in this one, for which the fixture holds
        asked.append(workers)
        return [work(*pickle.loads(pickle.dumps(job))) for job in reversed(jobs)]

    monkeypatch.setattr(working, "_by_processes", by_processes)
    model = galaxy.GalaxyModel(one_stochastic_layer(rng))  # of batches of 5
    train, held_out = rng.random((20, SIDE, SIDE)), rng.random((37, SIDE, SIDE))
    one = galaxy.evaluate(model, train, held_out, False, 3, 2)
    two = galaxy.evaluate(model, train, held_out, False, 3, 2, workers=2)
    assert asked == [2]
    assert one.metrics() == two.metrics()


def test_a_model_is_pickled(rng):
    model = galaxy.GalaxyModel(one_stochastic_layer(rng), temperature=1.5)
    again, images = pickle.loads(pickle.dumps(model)), rng.random((4, SIDE, SIDE))
    np.testing.assert_array_equal(again.encode(images), model.encode(images))
    np.testing.assert_array_equal(again.temperature, model.temperature)


def test_workers_that_cannot_be_had(rng):
    pytest.importorskip("dask.distributed", reason="pip install 'layerkit[dask]'")
    model, images = galaxy.GalaxyModel(one_stochastic_layer(rng)), rng.random((9, SIDE, SIDE))
    with pytest.raises(DataError, match="workers"):
        galaxy.evaluate(model, images, images, workers=0)
