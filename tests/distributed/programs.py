"""Programs that the processes of a test run: `mpiexec -n R python programs.py NAME ...`."""

import hashlib
import json
import os
import runpy
import signal
import sys
import time

import numpy as np

import layerkit as lk
from layerkit import layers as L


def pictures(count=96, side=13):
    return np.random.default_rng(1).integers(0, 256, (count, 1, side, side), dtype=np.uint8)


def paper():
    """The paper's net, smaller."""
    data = L.MemoryData("x", data=pictures(), scale=1 / 255, augment="dihedral")
    return lk.with_data(lk.load_net("nets/galaxy_gdae.py", pixels=169, hidden=12, latent=4), data)


def pose():
    """The net with the pose among its latents, which has L2."""
    data = L.MemoryData("x", data=pictures(side=21), scale=1 / 255, augment="dihedral")
    return lk.with_data(lk.load_net("nets/galaxy_pose.py", side=21, hidden=12, latent=6), data)


def lanes():
    """The paper's net on a file, of which each shard reads a lane."""
    data = L.HDF5Data("x", path=os.environ["LANES"], scale=1 / 255, block=8, mixed=2, lanes=4)
    return lk.with_data(lk.load_net("nets/galaxy_gdae.py", pixels=169, hidden=12, latent=4), data)


def conv():
    """Convolutions with batch norm, dropout, and L1 and L2."""
    labels = np.arange(96) % 5
    return [
        L.MemoryData("d", data=[pictures(), labels], tops=["x", "t"], scale=1 / 255),
        L.Convolution("c1", "x", channels=4, kernel=3, bias=None),
        L.BatchNorm("n1", "c1"),
        L.ReLU("r1", "n1"),
        L.Pooling("p1", "r1", kernel=2, stride=2),
        L.Dropout("kept", "p1", ratio=0.3),
        L.Dense("h", "kept", units=16, neuron="relu", l1=1e-3, l2=1e-2),
        L.BatchNorm("n2", "h"),
        L.Dense("y", "n2", units=5),
        L.SoftmaxLoss("loss", "y", "t"),
        L.Accuracy("accuracy", "y", "t"),
    ]


def solvers(net):
    return {
        "adam": lambda **k: lk.Adam(net, 1e-2, **k),
        "adamw": lambda **k: lk.AdamW(net, 1e-2, clip=0.5, ema=0.9, **k),
        "sgd": lambda **k: lk.SGD(net, 1e-3, clip=0.5, **k),
    }


NETS = {"lanes": lanes, "paper": paper, "pose": pose, "conv": conv}
CASES = ("paper-adam", "paper-adamw", "pose-adam", "conv-adamw", "conv-sgd")


def digest(net, solver, statistics=True):
    found = hashlib.sha256(net.arena.data)
    for name, array in sorted(solver.history.items()):
        if not name.startswith("accumulated"):
            found.update(array)
    for s in net.statistics.values() if statistics else ():
        found.update(s.data)
    return found.hexdigest()


def trained(name, comm, shards=4, steps=3):
    """Train one of CASES; return net and solver."""
    kind, which = name.split("-")
    net = lk.Net(NETS[kind](), batch_size=8, seed=3)
    solver = lk.Distributed(solvers(net)[which](), comm, shards=shards)
    return net, solver, solver.steps(steps)


def bits():
    """Print what the processes end with, by case."""
    comm = lk.distributed.mpi()
    found = {}
    for name in CASES:
        net, solver, losses = trained(name, comm)
        found[name] = [digest(net, solver), losses.tolist(), dict(net.losses), net.state()]
    if comm.leads:
        print(json.dumps(found))


def fault(kind):
    """Train until something happens in rank 1; say whether a step that failed changed anything."""
    comm = lk.distributed.mpi(timeout=3)
    net = lk.Net(paper(), batch_size=8, seed=3)
    check = 20 if kind == "differ" else 1000
    solver = lk.Distributed(lk.Adam(net), comm, shards=4, check=check)
    for step in range(100_000):
        before = net.arena.data.copy(), net.state(), solver.iteration
        if step == 20 and comm.rank == 1:
            if kind == "raise":
                raise ValueError("a shelf fell down")
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "leave":
                return
            if kind == "hang":
                time.sleep(3600)
            if kind == "nan":
                images = net.layers["x"].resident[0]
                net.layers["x"].resident[0] = np.full_like(images, np.nan, dtype="float32")
            if kind == "bug":
                net.passes.backward = None
            if kind == "differ":
                net.arena.data[5] += 1
        try:
            solver.step()
        except lk.LayerkitError:
            same = (before[0] == net.arena.data).all() or kind == "differ"
            if same and before[1:] == (net.state(), solver.iteration):
                print("unchanged\n", end="", flush=True)
            raise


def differing(kind, folder):
    """Train where rank 1 reads another file, or none, is given other rows, or set up otherwise."""
    comm = lk.distributed.mpi(timeout=3)
    if kind in ("ratio", "rate"):
        net, odd = lk.Net(conv(), batch_size=8, seed=3), comm.rank == 1
        if odd and kind == "ratio":
            net.layers["kept"].ratio = 0.5
        rate = lk.rates.Cosine(2e-3 if odd and kind == "rate" else 1e-3, 100)
        lk.Distributed(lk.Adam(net, rate), comm).steps(9)
    if kind == "inputs":
        layers = [L.Input("x", shape=(3,)), L.Dense("y", "x", units=3), L.SquareLoss("l", "y", "x")]
        solver = lk.Distributed(lk.Adam(lk.Net(layers, 8)), comm)
        for step in range(9):
            more = step == 5 and comm.rank == 1
            solver.step(x=np.ones((16 if more else 8, 3)))
    os.environ["LANES"] = f"{folder}/{comm.rank}.h5"
    lk.Distributed(lk.Adam(lk.Net(lanes(), batch_size=8, seed=3)), comm, shards=4).steps(9)


class Unrecorded:
    """A communicator whose calls no GPU can record."""

    records = False

    def __init__(self, comm):
        self.comm = comm

    def __getattr__(self, name):
        return getattr(self.comm, name)


class Processes:
    """A job of the stand-in for NCCL whose processes are those of MPI."""

    def __init__(self):
        from mpi4py import MPI

        self.world, self.called = MPI.COMM_WORLD.Dup(), []
        self.size = self.world.size

    def meet(self, rank, value):
        return self.world.allgather(value)


def gpus(kind):
    """Train on a GPU for each process, by stand-ins; print bits and losses, and those by calls."""
    import cuda_host
    from nccl_stand_in import stand_in

    with cuda_host.installed(seed=7, races=False) as cupy:
        job = Processes()
        cupy.cuda.nccl = sys.modules["cupy.cuda.nccl"] = stand_in({"name": job})
        comm = lk.distributed.nccl(exact=kind == "1", timeout=20)
        if kind == "nan":
            data = L.MemoryData("x", data=pictures() / np.float32(255))
            layers = lk.load_net("nets/galaxy_gdae.py", pixels=169, hidden=12, latent=4)
            net = lk.Net(lk.with_data(layers, data), 4, "cupy", seed=3)
            solver = lk.Distributed(lk.Adam(net, 1e-2), comm)
            solver.steps(6)
            if comm.rank == 1:
                net.runners["x"].arrays[0].fill(np.nan)
            try:
                solver.steps(6)
            finally:
                print(f"{solver.iteration} steps\n", end="", flush=True)
        found = []
        for way in ("replayed", "unrecorded", "by calls"):
            net = lk.Net(paper(), 4, "cupy", seed=3)
            solver = lk.Distributed(lk.Adam(net, 1e-2), comm)
            solver.record = way == "replayed"
            if way == "by calls":
                solver.team.comm = Unrecorded(comm)
            losses = [*solver.steps(4), solver.step()]
            lk.Trainer(solver).run(steps=3)
            steps = [one._replay is not None for one in solver._steps.recorded.values()]
            assert steps == {"replayed": [True], "unrecorded": [False], "by calls": []}[way]
            bits = hashlib.sha256(net.arena.data.get()).hexdigest()
            found.append([bits, losses, net.state(), solver.iteration])
        host = lk.Distributed(lk.Adam(lk.Net(paper(), 4, seed=3), 1e-2), lk.distributed.alone(), 2)
        if comm.leads:
            print(json.dumps([*found, host.steps(5).tolist(), sorted(set(job.called))]))


def stopped(folder):
    """Train until a signal comes to rank 1."""
    comm = lk.distributed.mpi()
    net = lk.Net(paper(), batch_size=8, seed=3)
    solver = lk.Distributed(lk.Adam(net), comm, shards=4)

    def end(trainer):
        if trainer.iteration == 6 and comm.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer = lk.Trainer(
        solver, [lk.breaks.Call(end, every=1), lk.breaks.Snapshot(folder), lk.breaks.Progress()]
    )
    ending = trainer.run(until=1000)
    found = comm.gather((ending, solver.iteration))
    if comm.leads:
        print(json.dumps(found))


def resumed(folder, until):
    """Train until an iteration, from the last snapshot in the folder if there is one."""
    comm = lk.distributed.mpi()
    net = lk.Net(conv(), batch_size=8, seed=3)
    solver = lk.Distributed(lk.AdamW(net, 1e-2, ema=0.9), comm, shards=4)
    trainer = lk.Trainer(
        solver,
        [
            lk.breaks.Validate(net, {"x": pictures() / 255, "t": np.arange(96) % 5}, every=3),
            lk.breaks.EarlyStop(patience=50),
            lk.breaks.KeepBest(f"{folder}/best.h5"),
            lk.breaks.Log(f"{folder}/log.csv", every=2),
            lk.breaks.Snapshot(folder, every=5),
        ],
    )
    trainer.resume(folder, missing_ok=True)
    trainer.run(until=int(until))
    found = comm.gather((digest(net, solver), trainer.values))
    assert all(its == found[0] for its in found)
    if comm.leads:
        print(json.dumps([digest(net, solver), trainer.values, net.state()]))


def normalized(shards):
    """Train a net with batch norm whose shards normalise as one; print all parameters."""
    comm = lk.distributed.mpi()
    rng = np.random.default_rng(5)
    x, t = rng.normal(size=(24, 2, 3, 3)), rng.normal(size=(24, 4))
    layers = [
        L.Input("x", shape=(2, 3, 3)),
        L.Input("t", shape=(4,)),
        L.Convolution("c", "x", channels=3, kernel=2, bias=None),
        L.BatchNorm("n", "c", gain=0.5, bias=0.1),
        L.Dense("h", "n", units=5, neuron="tanh"),
        L.BatchNorm("m", "h"),
        L.Dense("y", "m", units=4),
        L.SquareLoss("loss", "y", "t"),
    ]
    net = lk.Net(layers, batch_size=24 // comm.size, dtype="float64")
    solver = lk.SGD(net, 0.1)
    if int(shards):
        lk.Distributed(solver, comm, sync=True)
    losses = [solver.step(x=x, t=t) for _ in range(4)]
    if comm.leads:
        values = {name: a.data.tolist() for name, a in {**net.params, **net.statistics}.items()}
        print(json.dumps([losses, values]))


def from_lanes(steps):
    """Train on a file; print the bits, and how many rows each process has read."""
    comm = lk.distributed.mpi()
    net = lk.Net(lanes(), batch_size=8, seed=3)
    layer, read = net.layers["x"], []
    read_stretches = layer._read_all

    def counting(stretches):
        read.extend(b - a for a, b in stretches)
        return read_stretches(stretches)

    layer._read_all = counting
    solver = lk.Distributed(lk.Adam(net, 1e-2), comm, shards=4)
    solver.steps(int(steps))
    rows = comm.gather(sum(read))
    if comm.leads:
        print(json.dumps([digest(net, solver), rows]))


def galaxies(runs):
    """Train on galaxies by the example, without figures, once for each list of arguments."""
    import pytest
    from galaxy_runs import quicken

    quicken(pytest.MonkeyPatch())
    for arguments in json.loads(runs):
        sys.argv = ["galaxy_gdae.py", *arguments]
        with pytest.raises(SystemExit) as ended:
            runpy.run_path("examples/galaxy_gdae.py", run_name="__main__")
        assert ended.value.code == 0


PROGRAMS = {
    "from_lanes": from_lanes,
    "galaxies": galaxies,
    "gpus": gpus,
    "normalized": normalized,
    "bits": bits,
    "differing": differing,
    "fault": fault,
    "stopped": stopped,
    "resumed": resumed,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
