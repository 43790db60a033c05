"""NCCL by a stand-in: sums over GPUs, as a tree or in NCCL's own order."""

import ctypes
import threading
from types import ModuleType

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.distributed.communicator import Communicator
from layerkit.distributed.nccl import Collective
from layerkit.errors import BackendError, NetError

FLOATS = {7: np.float32, 8: np.float64}


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


def bytes_at(address, count):
    return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address))


def stand_in(jobs):
    """Return a module like cupy.cuda.nccl, whose communicators meet in a job and add backwards."""
    module = ModuleType("cupy.cuda.nccl")
    local = threading.local()

    class NcclCommunicator:
        def __init__(self, size, name, rank):
            self.job, self.rank = jobs[name], rank
            if self.job.size != size:
                raise module.NcclError("Duplicate GPU detected")

        def queue(self, *call):
            assert local.group is not None, "outside of a group"
            local.group.append((self, *call))

        def allReduce(self, send, receive, count, kind, op, stream):  # noqa: N802
            assert op == module.NCCL_SUM
            self.queue("allReduce", send, receive, count, kind)

        def send(self, address, count, kind, peer, stream):
            self.queue("send", address, count, kind, peer)

        def recv(self, address, count, kind, peer, stream):
            self.queue("recv", address, count, kind, peer)

    def start():
        local.group = []

    def end():
        group, local.group = local.group, None
        for comm, name, *rest in group:
            comm.job.called.append(name)
            if name == "allReduce":
                send, receive, count, kind = rest
                width = np.dtype(FLOATS[kind]).itemsize
                own = bytes_at(send, count * width).view(FLOATS[kind]).copy()
                found = comm.job.meet(comm.rank, own)
                total = found[-1]
                for one in found[-2::-1]:
                    total = total + one
                bytes_at(receive, count * width).view(FLOATS[kind])[...] = total
        sent = [
            (rest[3], bytes_at(rest[0], rest[1]).copy()) for _, n, *rest in group if n == "send"
        ]
        taken = [(rest[3], rest) for _, n, *rest in group if n == "recv"]
        if sent:
            found = group[0][0].job.meet(group[0][0].rank, sent[0])
            peer, (address, count, *_) = taken[0]
            assert found[peer][0] == group[0][0].rank
            bytes_at(address, count)[...] = found[peer][1]

    module.NcclCommunicator, module.groupStart, module.groupEnd = NcclCommunicator, start, end
    module.NcclError = type("NcclError", (RuntimeError,), {})
    module.NCCL_FLOAT32, module.NCCL_FLOAT64, module.NCCL_UINT8, module.NCCL_SUM = 7, 8, 1, 0
    module.get_unique_id = lambda: next(iter(jobs))
    return module


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
