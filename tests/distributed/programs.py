"""What the processes of a test run: `mpiexec -n R python programs.py NAME ...`."""

import hashlib
import json
import sys

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


NETS = {"paper": paper, "pose": pose, "conv": conv}
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


PROGRAMS = {"bits": bits}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
