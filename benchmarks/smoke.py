"""First checks on a new GPU, one verdict a line: what benchmarks/gpu.py --smoke runs.

Nothing is timed, and nothing stops at the first failure.  Only once the GPU itself has ceased to
answer is the rest skipped, as every call would then fail with the error of an earlier one.
"""

from __future__ import annotations

import ctypes
import platform
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import layerkit as lk
from layerkit import layers as L
from layerkit.cli.command import brief
from layerkit.errors import NotFiniteError

NETS = Path(__file__).resolve().parent.parent / "nets"
PAPER = "galaxy_gdae"
SCENE = {"galaxy_light", "galaxy_profile"}  # which take more than pictures
OTHERS = sorted({path.stem for path in NETS.glob("*.py")} - {PAPER} - SCENE)
BATCHES = [1, 5, 17, 128]  # of the paper's net
BATCH = 17  # of all else
SIDE = 69  # pixels of a side of a picture
HIDDEN: int | None = None  # units of hidden layers, other than the nets' own
STEPS, IMAGES = 10, 64  # so that minibatches cross from one epoch into the next
# Relative errors.  Products of 4,761 terms; losses after ten steps of Adam, whose first go by the
# signs of gradients that rounding may turn.
PRODUCT_LIMITS = {"float32": 1e-5, "TF32": 2e-3, "float64": 1e-13}
LOSS_LIMITS = {"float32": 1e-3, "TF32": 1e-2, "float64": 1e-9}


class Wrong(Exception):  # noqa: N818  # no error of the program
    """A check that failed; its text says with which number."""


class Skipped(Exception):  # noqa: N818
    """A check that cannot be made; its text says why."""


class Verdicts:
    """Checks made one after the other, each with its line."""

    def __init__(self) -> None:
        self.counts = {"ok": 0, "FAILED": 0, "skipped": 0}
        self.lost = ""  # why nothing can be checked any more

    def check(self, name: str, function: Callable[..., str], *args: Any) -> None:
        """Make a check that returns its number, or raises; print the verdict."""
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            verdict, text = self._verdict(function, *args)
        text += "".join(f"; warning: {brief(str(w.message), 300)}" for w in warned)
        self.counts[verdict] += 1
        print(f"{verdict:8} {name}: {text} [{time.perf_counter() - started:.1f} s]", flush=True)

    def _verdict(self, function: Callable[..., str], *args: Any) -> tuple[str, str]:
        if self.lost:
            return "skipped", self.lost
        try:
            return "ok", function(*args)
        except Skipped as why:
            return "skipped", brief(str(why))
        except Wrong as error:
            return "FAILED", brief(str(error))
        except Exception as error:  # CUDA's, CuPy's, layerkit's: the next check may still pass
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}:{frame.lineno}"
            found = f"{type(error).__name__} at {place}: {brief(str(error), 400)}"
            try:
                a_net().backend.synchronize()
            except Exception:  # after an illegal access, say, the process has lost the GPU
                self.lost = "the GPU does not answer since the failure above"
            return "FAILED", found


def run(batches: list[int]) -> int:
    """Make all checks, those of the paper's net at each batch; return 1 if any failed, else 0."""
    verdicts = Verdicts()
    check = verdicts.check
    check("versions", versions)
    check("GPU", gpu)
    for precision in PRODUCT_LIMITS:
        for a in ("rows", "columns"):
            for b in ("rows", "columns"):
                check(f"products, {precision}, a by {a}, b by {b}", products, precision, a, b)
    check("capture and replay", capture)
    nets = Nets()
    for batch in batches:
        check_net(check, nets, PAPER, batch)
    for name in OTHERS:
        check_net(check, nets, name, BATCH)
    for name in (PAPER, *OTHERS):
        check(f"{name}, float64, against NumPy", against_numpy, nets, name, BATCH, "float64")
    check(f"{PAPER}, TF32, against NumPy", against_numpy, nets, PAPER, BATCH, "TF32")
    check("two runs", two_runs, nets)
    for dtype in ("float32", "uint8"):
        check(f"resident against streamed data, {dtype}", resident_against_streamed, dtype)
    check("inference against NumPy", inference)
    check("a loss that is not finite", not_finite)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.counts.items())
    print(f"{sum(verdicts.counts.values())} checks: {counts}")
    return int(verdicts.counts["FAILED"] > 0)


def check_net(check: Callable[..., None], nets: Nets, name: str, batch: int) -> None:
    """Check what a net does recorded, called, and on NumPy."""
    label = f"{name}, batch {batch}"
    check(f"{label}, recorded against called", recorded_against_called, nets, name, batch)
    check(f"{label}, nodes of a step", nodes, nets, name, batch)
    check(f"{label}, against NumPy", against_numpy, nets, name, batch, "float32")


# Nets and their settings.


def a_net(**settings: Any) -> lk.Net:
    """The smallest net there is, for its backend."""
    return lk.Net([L.Input("x", shape=(1,))], backend="cupy", **settings)


def versions() -> str:
    """Versions of all that is written in Python."""
    cupy = a_net().xp
    return (
        f"Python {platform.python_version()}, NumPy {np.__version__}, CuPy {cupy.__version__}, "
        f"layerkit {lk.__version__}"
    )


def gpu() -> str:
    """The GPU's name, memory and software."""
    runtime = a_net().xp.cuda.runtime
    found = runtime.getDeviceProperties(runtime.getDevice())
    name = found["name"].decode() if isinstance(found["name"], bytes) else found["name"]
    driver, library = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    memory = found["totalGlobalMem"] / 2**30
    return (
        f"{name}, compute capability {found['major']}.{found['minor']}, "
        f"{found['multiProcessorCount']} multiprocessors, {memory:.1f} GiB; "
        f"driver for CUDA {version(driver)}, runtime {version(library)}"
    )


def version(number: int) -> str:
    """CUDA's way of writing a version, in digits: 13020 is 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


# Products, capture.


def products(precision: str, a_by: str, b_by: str) -> str:
    """The largest error of products of factors stored by rows or by columns."""
    dtype = "float64" if precision == "float64" else "float32"
    net = a_net(dtype=dtype, tf32=precision == "TF32")
    rng, pixels, worst = np.random.default_rng(0), SIDE * SIDE, 0.0
    for m, k, n in ((1, pixels, 128), (128, pixels, 128), (128, 128, pixels), (3, 4, 5)):
        x, w = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
        out = net.xp.full((m, n), np.nan, dtype)
        net.backend.gemm(stored(net, x, a_by), stored(net, w, b_by), out)
        expected = x.astype("float64") @ w.astype("float64")
        difference = np.linalg.norm(net.backend.to_host(out) - expected)
        worst = max(worst, limited(difference / np.linalg.norm(expected), np.inf))
    return f"error {limited(worst, PRODUCT_LIMITS[precision]):.1e}"


def stored(net: lk.Net, matrix: np.ndarray, by: str) -> Any:
    """A matrix on the GPU, by rows, or by columns as the transposed view of another."""
    if by == "rows":
        return net.backend.asarray(matrix)
    return net.backend.asarray(np.ascontiguousarray(matrix.T)).T


def limited(error: Any, limit: float) -> float:
    """The error; Wrong if it is beyond the limit or no number."""
    if not error <= limit:
        raise Wrong(f"error {error:.1e}, more than {limit:.0e}")
    return float(error)


def capture() -> str:
    """A product and a sum, recorded, and replayed twice after their inputs have changed."""
    net, pixels = a_net(), SIDE * SIDE
    xp, backend, graphs = net.xp, net.backend, watch(net)
    x, w = xp.ones((17, pixels), "float32"), xp.ones((pixels, 128), "float32")
    y, total = (xp.zeros((17, 128), "float32") for _ in range(2))

    def step() -> None:
        backend.gemm(x, w, y)
        xp.add(total, y, out=total)

    step()
    replay = backend.capture(step)
    x.fill(2)
    y.fill(-1)
    replay()
    replay()
    expected, found = 5 * pixels, backend.to_host(total)
    if not (found == expected).all():
        wrong = found[found != expected]
        raise Wrong(f"{wrong.size} of {found.size} sums are wrong, {wrong[0]} and not {expected}")
    count = "" if graphs[0].nodes is None else f"; {graphs[0].nodes} nodes"
    return f"sums are {expected}, exactly{count}"


# Nodes of graphs.


@dataclass
class Graph:
    """A recorded graph, as far as it is known.

    Attributes:
        nodes: how many, or None.
        why: they could not be counted, or the step not recorded.
        failed: whether recording failed.
    """

    nodes: int | None = None
    why: str = ""
    failed: bool = False


def watch(net: lk.Net) -> list[Graph]:
    """Note each graph that a net's backend records from now on."""
    backend, graphs = net.backend, []
    record = backend.capture

    def watched(step: Callable[[], None], *args: Any, **settings: Any) -> Any:
        graph = Graph()
        graphs.append(graph)

        def counted() -> None:
            step()
            try:
                graph.nodes = count_nodes(net.xp.cuda.get_current_stream().ptr)
            except Skipped as why:
                graph.why = str(why)

        try:
            return record(counted, *args, **settings)
        except Exception as error:
            graph.nodes, graph.why, graph.failed = None, f"{type(error).__name__}: {error}", True
            raise

    backend.capture = watched  # type: ignore[method-assign]
    return graphs


def count_nodes(stream: int) -> int:
    """How many nodes the graph has that this stream is recording, by CUDA's driver.

    It is asked while recording, as CuPy hands out no graph, only what has become of it.

    Raises:
        Skipped: the driver cannot be asked, or does not say.
    """
    cuda = driver()
    status, number, graph = ctypes.c_int(), ctypes.c_uint64(), ctypes.c_void_p()
    known = [ctypes.byref(status), ctypes.byref(number), ctypes.byref(graph)]
    for name, more in (("cuStreamGetCaptureInfo_v2", 2), ("cuStreamGetCaptureInfo_v3", 3)):
        if hasattr(cuda, name):
            ask(cuda, name, ctypes.c_void_p(stream), *known, *[ctypes.c_void_p()] * more)
            break
    else:
        raise Skipped("the driver knows no cuStreamGetCaptureInfo with graphs (CUDA 11.3)")
    if status.value != 1 or not graph.value:  # CU_STREAM_CAPTURE_STATUS_ACTIVE
        raise Skipped("the current stream is not the one that is recorded")
    count = ctypes.c_size_t()
    ask(cuda, "cuGraphGetNodes", graph, ctypes.c_void_p(), ctypes.byref(count))
    return count.value


def ask(cuda: Any, name: str, *args: Any) -> None:
    """Call the driver; Skipped if it refuses."""
    if error := getattr(cuda, name)(*args):
        raise Skipped(f"{name} failed with error {error}")


def driver() -> Any:
    """CUDA's driver, which every program on the GPU has loaded."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise Skipped(f"nodes cannot be counted: {error}") from error


# Training.


@dataclass
class Trained:
    """The results of some steps of training.

    Attributes:
        losses: of each step.
        parameters: name -> array, on the host.
        graphs: that were recorded.
    """

    losses: np.ndarray
    parameters: dict[str, np.ndarray]
    graphs: list[Graph]


def layers_of(name: str) -> list[Any]:
    """One of the nets in nets/."""
    settings = {"side": SIDE} if name in ("galaxy_conv", "galaxy_pose") else {"pixels": SIDE**2}
    return lk.load_net(NETS / f"{name}.py", **settings, **{"hidden": HIDDEN} if HIDDEN else {})


def pictures(dtype: str = "float32") -> np.ndarray:
    """Pictures that nobody took: a disc somewhere, and noise."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:SIDE, :SIDE][:, None] / SIDE - rng.uniform(0.4, 0.6, (2, IMAGES, 1, 1))
    light = 0.6 * np.exp(-(x**2 + y**2) / 0.02) + 0.1 * rng.random((IMAGES, SIDE, SIDE))
    light = light.reshape(IMAGES, -1)
    return (255 * light).astype("uint8") if dtype == "uint8" else light.astype(dtype)


def train(
    layers: list[Any],
    data: Any,
    batch: int,
    backend: str = "cupy",
    record: bool = True,
    precision: str = "float32",
) -> Trained:
    """Train for STEPS steps."""
    settings: dict[str, Any] = {"dtype": "float64" if precision == "float64" else "float32"}
    if backend == "cupy":
        settings["tf32"] = precision == "TF32"
    net = lk.Net(lk.with_data(layers, data), batch, backend, seed=3, **settings)
    graphs = watch(net) if backend == "cupy" else []
    solver = lk.Adam(net, 1e-3)
    solver.record = record
    losses = np.asarray(solver.steps(STEPS))
    found = {name: net.backend.to_host(p.data) for name, p in net.params.items()}
    return Trained(losses, found, graphs)


class Nets:
    """The nets in nets/, each trained on resident pictures once for all checks of it."""

    def __init__(self) -> None:
        self._trained: dict[Any, Trained] = {}

    def train(self, name: str, batch: int, **settings: Any) -> Trained:
        """Train a net anew."""
        data = L.MemoryData("x", data=pictures())
        return train(layers_of(name), data, batch, **settings)

    def trained(self, name: str, batch: int, **settings: Any) -> Trained:
        """Return what training gave, perhaps for an earlier check."""
        key = name, batch, *sorted(settings.items())
        if key not in self._trained:
            self._trained[key] = self.train(name, batch, **settings)
        return self._trained[key]


def recorded_against_called(nets: Nets, name: str, batch: int) -> str:
    """Losses and parameters of recorded steps are those of steps called one by one."""
    recorded = nets.trained(name, batch)
    was_recorded(name, recorded)
    return equal(recorded, nets.trained(name, batch, record=False))


def was_recorded(name: str, found: Trained) -> None:
    """Skipped if nothing was recorded; Wrong if that failed, or the net is the paper's."""
    failed = [graph for graph in found.graphs if graph.failed]
    if failed:
        raise Wrong(f"a step cannot be recorded: {failed[0].why}")
    if not found.graphs:
        raise (Wrong if name == PAPER else Skipped)("no step of this net is recorded")


def equal(one: Trained, other: Trained) -> str:
    """Wrong if two trainings differ in any bit."""
    arrays = [(one.losses, other.losses, "losses")]
    arrays += [(a, other.parameters[name], name) for name, a in one.parameters.items()]
    for a, b, label in arrays:
        if not np.isfinite(a).all():
            raise Wrong(f"{label}: not all are finite")
        if a.tobytes() != b.tobytes():
            raise Wrong(
                f"{label}: {np.count_nonzero(a != b)} of {a.size} differ, the most by "
                f"{np.abs(a - b).max():.1e}"
            )
    return f"{sum(a.size for a, _, _ in arrays):,} numbers equal bit for bit"


def nodes(nets: Nets, name: str, batch: int) -> str:
    """How many nodes a recorded step has."""
    found = nets.trained(name, batch)
    was_recorded(name, found)
    unknown = [graph.why for graph in found.graphs if graph.nodes is None]
    if unknown:
        raise Skipped(unknown[0])
    return " + ".join(str(graph.nodes) for graph in found.graphs)


def against_numpy(nets: Nets, name: str, batch: int, precision: str) -> str:
    """The losses are those of NumPy."""
    there = nets.trained(name, batch, **{} if precision == "float32" else {"precision": precision})
    here = nets.trained(
        name, batch, backend="numpy", precision="float64" if precision == "float64" else "float32"
    )
    limit = LOSS_LIMITS[precision]
    error = np.max(np.abs(there.losses - here.losses) / np.abs(here.losses))
    text = f"losses differ by {limited(error, limit):.1e}"
    if precision == "float64":  # where rounding turns next to no sign of a gradient
        errors = [
            limited(np.linalg.norm(there.parameters[k] - p) / (1 + np.linalg.norm(p)), limit)
            for k, p in here.parameters.items()
        ]
        text += f", parameters by {max(errors):.1e}"
    return text


def two_runs(nets: Nets) -> str:
    """Training gives the same numbers twice."""
    return equal(*(nets.train(PAPER, BATCH) for _ in range(2)))


def resident_against_streamed(dtype: str) -> str:
    """Pictures kept on the GPU give what pictures sent to it batch by batch give."""
    images, layers = pictures(dtype), layers_of(PAPER)
    settings: Any = {"shuffle": False, "scale": 1 / 255 if dtype == "uint8" else 1.0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.h5"
        with h5py.File(path, "w") as file:
            file["images"] = images
        streamed = train(layers, L.HDF5Data("x", path=path, **settings), BATCH)
    resident = train(layers, L.MemoryData("x", data=images, **settings), BATCH)
    return equal(resident, streamed)


def inference() -> str:
    """Latent means of more pictures than fit into a batch are those of NumPy."""
    found = []
    for backend in ("cupy", "numpy"):
        net = lk.Net(layers_of(PAPER), BATCH, backend, seed=3)
        found.append(np.asarray(net.infer("z_mean", x=pictures())))
    there, here = found
    error = np.linalg.norm(there - here) / np.linalg.norm(here)
    return f"error {limited(error, PRODUCT_LIMITS['float32']):.1e}"


def not_finite() -> str:
    """Training stops at a picture that is not finite, before the update, and says so."""
    bad, images = 4, pictures()[: 6 * 8]
    images[8 * bad] = np.inf
    data = L.MemoryData("x", data=images, shuffle=False)
    net = lk.Net(lk.with_data(layers_of(PAPER), data), 8, "cupy", seed=3)
    solver = lk.Adam(net, 1e-3)
    try:
        solver.steps(6)
    except NotFiniteError:
        pass
    else:
        raise Wrong("training went on")
    if solver.iteration != bad:
        raise Wrong(f"training stopped after {solver.iteration} steps, not {bad}")
    for name, p in net.params.items():
        if not np.isfinite(net.backend.to_host(p.data)).all():
            raise Wrong(f"{name} is not finite any more")
    return f"stopped after {bad} steps, parameters are finite"
