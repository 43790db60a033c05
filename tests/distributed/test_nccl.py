"""NCCL by a stand-in: sums over GPUs, as a tree or in NCCL's own order."""

import json
import threading

import numpy as np
import pytest
from nccl_stand_in import stand_in
from processes import program

import layerkit as lk
from layerkit import layers as L
from layerkit.distributed.communicator import Communicator
from layerkit.distributed.nccl import Collective
from layerkit.errors import BackendError, NetError


class Job:
    """So many processes, each a thread, that meet."""

    def __init__(self, size):
        self.size, self.barrier = size, threading.Barrier(size, timeout=20)
        self.values, self.called = [None] * size, []

    def meet(self, rank, value):
        self.values[rank] = value
        self.barrier.wait()
        found = list(self.values)
        self.barrier.wait()
        return found


class Host(Communicator):
    """Does by threads all that MPI does by processes."""

    def __init__(self, job, rank):
        self.job, self.rank, self.size = job, rank, job.size

    def gather(self, value):
        return self.job.meet(self.rank, value)

    def broadcast(self, value):
        return self.job.meet(self.rank, value)[0]


@pytest.fixture
def jobs(cupy_on_host, monkeypatch):
    found = {}
    cupy_on_host.cuda.nccl = stand_in(found)
    monkeypatch.setitem(__import__("sys").modules, "cupy.cuda.nccl", cupy_on_host.cuda.nccl)
    return found


def added(cupy, job, numbers, exact):
    """Return what each of several threads gets as the sum of float32 and float64 numbers."""
    found, errors = [None] * job.size, []

    def work(rank):
        try:
            comm = Collective(Host(job, rank), exact)
            buffers = [cupy.zeros(len(numbers[0]) * 12, np.uint8) for _ in range(2)]
            halves = [(b[: len(b) // 3].view("f4"), b[len(b) // 3 :].view("f8")) for b in buffers]
            for half in halves[0]:
                half[...] = cupy.asarray(numbers[rank].astype(half.dtype))

            def add():
                for total, taken in zip(*halves, strict=True):
                    total += taken

            comm.add_up(*buffers, add, list(halves[0]))
            found[rank] = [cupy.asnumpy(half) for half in halves[0]]
        except BaseException as error:
            errors.append(error)
            job.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(job.size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("exact", [True, False])
def test_all_processes_get_the_sum(jobs, cupy_on_host, rng, size, exact):
    job = jobs["name"] = Job(size)
    numbers = rng.normal(size=(size, 24)) * 10.0 ** rng.integers(-6, 6, (size, 24))
    found = added(cupy_on_host, job, numbers, exact)
    for k, dtype in enumerate(("f4", "f8")):
        tree = list(numbers.astype(dtype))
        while exact and len(tree) > 1:
            tree = [a + b for a, b in zip(tree[::2], tree[1::2], strict=True)]
        expected = tree[0] if exact else sum(numbers[::-1].astype(dtype))
        for own in found:
            np.testing.assert_array_equal(own[k], expected.astype(dtype))
    assert set(job.called) == (set() if size == 1 else {"send", "recv"} if exact else {"allReduce"})


def net(cupy_needed=True):
    layers = [
        L.MemoryData("x", data=np.random.default_rng(0).normal(size=(40, 5)).astype("f4")),
        L.Dense("h", "x", units=6, neuron="relu"),
        L.BatchNorm("n", "h"),
        L.Dense("y", "n", units=5),
        L.SquareLoss("loss", "y", "x"),
    ]
    return lk.Net(layers, 4, "cupy" if cupy_needed else "numpy", seed=1)


def test_one_gpu_with_all_shards_gives_the_bits_of_accumulated_gradients(jobs):
    jobs["name"] = Job(1)
    shared = lk.Distributed(lk.Adam(net(), 0.01), lk.distributed.nccl(), shards=4)
    plain = lk.Adam(net(), 0.01, accumulate=4)
    losses = shared.steps(5)
    plain.steps(20)
    for name, p in plain.net.params.items():
        np.testing.assert_array_equal(shared.net.params[name].data.get(), p.data.get(), name)
    host = lk.Distributed(lk.Adam(net(False), 0.01), lk.distributed.alone(), shards=4)
    np.testing.assert_allclose(losses, host.steps(5), rtol=1e-4)


@pytest.mark.parametrize("exact", [1, 0])
def test_gpus_record_steps_with_their_sum(cupy_on_host, exact):
    """Two processes: what is replayed has the bits of the steps that are made call by call."""
    done = program(2, "gpus", exact)
    assert done.returncode == 0, done.stderr
    replayed, unrecorded, by_calls, host, called = json.loads(done.stdout)
    assert replayed == unrecorded
    if exact:  # also for more shards than GPUs, which are not recorded
        assert replayed[0] == by_calls[0]
    for other in (by_calls[1], host):
        np.testing.assert_allclose(replayed[1], other, rtol=1e-4)
    assert replayed[2:] == by_calls[2:]
    assert set(called) == ({"send", "recv"} if exact else {"allReduce"})


def test_a_gpu_that_meets_a_nan_in_a_recorded_step_is_named(cupy_on_host):
    done = program(2, "gpus", "nan")
    assert done.returncode
    assert done.stderr.count("NotFiniteError: rank 1 of 2: the loss is nan at iteration 6") == 1
    assert done.stdout.splitlines() == ["6 steps"] * 2


def test_one_gpu_with_one_shard_records_its_steps(jobs):
    jobs["name"] = Job(1)
    layers = [x for x in net().descriptions if not isinstance(x, L.BatchNorm)]
    layers[2].bottoms[0] = "h"
    shared = lk.Distributed(lk.Adam(lk.Net(layers, 4, "cupy"), 0.01), lk.distributed.nccl())
    plain = lk.Adam(lk.Net(layers, 4, "cupy"), 0.01)
    assert shared.recorded
    np.testing.assert_array_equal(shared.steps(5), plain.steps(5))
    assert not shared.team.stopped
    shared.team.stopping = True
    assert shared.step() == plain.step()
    assert shared.team.stopped
    np.testing.assert_array_equal(shared.net.arena.data.get(), plain.net.arena.data.get())
    assert not lk.Distributed(lk.Adam(net(), 0.01), lk.distributed.nccl()).recorded  # BatchNorm


def test_an_old_nccl_is_not_recorded(jobs, cupy_on_host):
    jobs["name"] = Job(1)
    comm = Collective(Host(jobs["name"], 0))
    comm.size = 2
    assert comm.records
    cupy_on_host.cuda.nccl.get_version = lambda: 2808
    assert not comm.records


def test_what_does_not_go_together_is_refused(jobs):
    class Gpus(Collective):
        size = 2

        def __init__(self):
            pass

    with pytest.raises(NetError, match="needs a net with backend='cupy'"):
        lk.Distributed(lk.Adam(net(False)), Gpus(), shards=2)
    jobs["name"] = Job(2)
    with pytest.raises(BackendError, match=r"NCCL does not start on GPU 0 \(Duplicate GPU"):
        Collective(Host(Job(1), 0))


def test_without_nccl_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(BackendError, match="NCCL is not there"):
        lk.distributed.nccl()
