"""Bits of training do not depend on how many processes share the shards."""

import copy
import json

import numpy as np
import programs
import pytest
from processes import program

import layerkit as lk
from layerkit import layers as L


@pytest.fixture(scope="module")
def of_one():
    """Return the digest at which one process with all four shards ends, by case."""
    found = {}
    for name in programs.CASES:
        net, solver, losses = programs.trained(name, lk.distributed.alone())
        digest = programs.digest(net, solver)
        found[name] = json.loads(
            json.dumps([digest, losses.tolist(), dict(net.losses), net.state()])
        )
    return found


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_any_number_of_processes_gives_the_bits_of_one(processes, of_one):
    done = program(processes, "bits")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == of_one


@pytest.mark.parametrize("shards", [2, 4, 8])
@pytest.mark.parametrize("name", programs.CASES)
def test_shards_give_the_bits_of_accumulated_gradients(name, shards):
    net, solver, losses = programs.trained(name, lk.distributed.alone(), shards)
    kind, which = name.split("-")
    other = lk.Net(programs.NETS[kind](), batch_size=8, seed=3)
    accumulating = programs.solvers(other)[which](accumulate=shards)
    each = accumulating.steps(3 * shards)
    assert programs.digest(net, solver, False) == programs.digest(other, accumulating, False)
    assert net.state() == other.state()
    np.testing.assert_allclose(losses, each.reshape(3, shards).mean(axis=1), rtol=1e-12)


def test_a_step_follows_the_gradient_of_one_large_batch(rng):
    x, t = rng.normal(size=(24, 5)), rng.normal(size=(24, 2))
    layers = [
        L.Input("x", shape=(5,)),
        L.Input("t", shape=(2,)),
        L.Dense("h", "x", units=4, neuron="tanh", l2=0.1),
        L.Dense("y", "h", units=2),
        L.SquareLoss("loss", "y", "t"),
    ]
    nets = [lk.Net(layers, batch_size=size, dtype="float64") for size in (6, 24)]
    solver = lk.Distributed(lk.SGD(nets[0], 0.1), lk.distributed.alone(), shards=4)
    whole = lk.SGD(nets[1], 0.1)
    for _ in range(3):
        assert solver.step(x=x, t=t) == pytest.approx(whole.step(x=x, t=t), rel=1e-12)
    np.testing.assert_allclose(nets[0].arena.data, nets[1].arena.data, rtol=1e-11)


def test_statistics_are_the_means_over_shards():
    net, solver, _ = programs.trained("conv-sgd", lk.distributed.alone(), 4, 1)
    found = []
    for shard in range(4):
        other = lk.Net(programs.conv(), batch_size=8, seed=3)
        other.set_state({"seed": 3, "passes": shard, "position/d": 8 * shard})
        other.forward()
        found.append({name: s.data.copy() for name, s in other.statistics.items()})
    for name, s in net.statistics.items():
        mean = np.mean([its[name] for its in found], axis=0, dtype="float64")
        np.testing.assert_allclose(s.data, mean, rtol=1e-6)
    assert solver.iteration == 1


@pytest.mark.parametrize("count", range(1, 18))
def test_terms_are_added_as_a_binary_tree(count):
    from layerkit.solvers.updates.histories import accumulated_names, tree_levels

    def tree(terms):  # halves of a power of two, the rest on the right
        if len(terms) == 1:
            return terms[0]
        half = 1 << (len(terms) - 1).bit_length() - 1
        return frozenset([tree(terms[:half]), tree(terms[half:])])

    kept = [None] * len(accumulated_names(count))
    for index in range(count):
        total, (levels, keep) = index, tree_levels(index, count)
        for level in levels:
            total = frozenset([kept[level], total])
        if keep is not None:
            kept[keep] = total
    assert keep is None
    assert total == tree(list(range(count)))


def test_shards_that_pool_are_normalised_as_one_batch():
    found = [program(1, "normalized", 0), *(program(n, "normalized", 1) for n in (2, 4))]
    assert [done.returncode for done in found] == [0, 0, 0], found[-1].stderr
    (losses, values), *others = (json.loads(done.stdout) for done in found)
    for pooled, its in others:
        np.testing.assert_allclose(pooled, losses, rtol=1e-11)
        for name, array in values.items():
            np.testing.assert_allclose(its[name], array, rtol=1e-9, atol=1e-12, err_msg=name)


def test_what_cannot_be_shared_is_refused():
    def solver(**settings):
        return lk.Adam(lk.Net(programs.paper(), batch_size=8), **settings)

    comm = lk.distributed.alone()
    for words, given, settings in (
        ("3 shards for 1 processes: both must be powers of two", solver(), {"shards": 3}),
        ("accumulates gradients", solver(accumulate=2), {}),
        ("2 shards on 1 processes: sync=True needs", solver(), {"shards": 2, "sync": True}),
        ("share this solver already", lk.Distributed(solver(), comm), {}),
    ):
        with pytest.raises(lk.errors.NetError, match=words):
            lk.Distributed(given, comm, **settings)
    with pytest.raises(lk.errors.NetError, match="expected a communicator"):
        lk.Distributed(solver(), 2)
    shared = lk.Distributed(solver(), comm, shards=2)
    for call in (shared.apply, shared.gradients, shared.profile):
        with pytest.raises(lk.errors.NetError, match="processes share each step of this solver"):
            call()
    assert copy.deepcopy(shared).team is None
