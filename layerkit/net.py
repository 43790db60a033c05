"""The Net: wires a list of layers by blob names, runs it forward, and backward."""

from __future__ import annotations

import copy
import fnmatch
import functools
import inspect
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np

from layerkit import backends, contract, settings
from layerkit.arrays import NUMBERS, check_exact, keeps_axes, narrowed, numbers
from layerkit.backends import philox
from layerkit.backends.base import Array
from layerkit.backends.cuda import Device
from layerkit.blob import Arena, Blob, Parameter
from layerkit.display import html_table
from layerkit.engines import cpu
from layerkit.engines.base import ArrayEngine, Make, Runner, call_layer
from layerkit.errors import NetError, brief
from layerkit.inference import Inference, Mirror
from layerkit.layer import Layer, Run, Shape, checked_shape
from layerkit.layers.input import Input
from layerkit.names import Named, closest, quoted
from layerkit.settings import Choice, Closed, Count, Flag, Name, Rule, Seed, checks, in_words
from layerkit.wiring import needing_gradients, readers_of, sort_layers

# Training that diverges overflows somewhere; the solver says where, in words.  NumPy need not.
QUIET = np.errstate(all="ignore")

class Precision(Rule):
    """A dtype that a net can have, by name or as NumPy has it."""

    expected = "'float32' or 'float64'"

    def accept(self, value: Any) -> str:
        """Return the name; the order of bytes is this computer's."""
        try:
            name = np.dtype(value).name if value is not None else ""
        except (TypeError, ValueError):
            name = ""
        if name not in ("float32", "float64"):
            raise ValueError
        return name


COUNTED = 2**62  # passes, examples: the most that a state may say there have been
DRAWING = 64  # bytes for each number that an initialiser draws, while it does

Method = TypeVar("Method", bound=Callable[..., Any])


def flushing(method: Method) -> Method:
    """Make a method of a net run with denormal numbers counted as zero, if the engine does so."""

    @functools.wraps(method)
    def run(self: Any, /, *args: Any, **settings: Any) -> Any:
        with self.engine.flushed():
            return method(self, *args, **settings)

    return run  # type: ignore[return-value]


def serialised(method: Method) -> Method:
    """Let one thread at a time run such methods, of a net and of all that share its `lock`.

    A call that does not fit the method is an error that says what the net takes.
    """
    signature = inspect.signature(method)
    by_place = [p for p in signature.parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
    needed = [p for p in by_place[1:] if p.default is p.empty]
    by_name = any(p.kind == p.VAR_KEYWORD for p in signature.parameters.values())

    @functools.wraps(method)
    def run(self: Any, /, *args: Any, **settings: Any) -> Any:
        if len(args) != len(needed) or (settings and not by_name):  # few calls, and wrong ones
            try:
                signature.bind(self, *args, **settings)
            except TypeError:
                raise NetError(_misused(self, method, args, settings)) from None
        with self.lock:
            return method(self, *args, **settings)

    return run  # type: ignore[return-value]


class Forward(NamedTuple):
    """A call of a forward pass, with the blobs to make it with."""

    layer: Layer
    call: Callable[[list[Blob], list[Blob]], None]
    bottoms: list[Blob]
    tops: list[Blob]
    recordable: bool


class Backward(NamedTuple):
    """A call of a backward pass; `gathers` are the tops whose diffs must first be added up."""

    layer: Layer
    call: Callable[[list[Blob], list[Blob]], None]
    bottoms: list[Blob]
    tops: list[Blob]
    recordable: bool
    gathers: list[tuple[Blob, list[Blob]]]


def _misused(
    self: Any, method: Callable[..., Any], args: tuple[Any, ...], settings: dict[str, Any]
) -> str:
    """Return a message on a call that does not fit a method of a net or of one of its solvers."""
    name, net = method.__name__, getattr(self, "net", self)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    usage = [str(p.replace(annotation=p.empty)) for p in parameters if p.kind != p.VAR_KEYWORD]
    inputs = net.input_names()
    came = ", ".join([
        *map(brief, args), *(f"{key}={brief(value)}" for key, value in settings.items())
    ])
    last = parameters[-1] if parameters else None
    if last is None or last.kind != last.VAR_KEYWORD:
        hint = "arrays are given to forward, or come from data layers (layerkit.with_data); "
        hint += f"this net's inputs are {quoted(inputs)}"
    elif last.name == "changes":
        usage, hint = ["batch_size=..."], "settings of Net are given by name"
    else:
        names = [list(net.blobs)[-1]] if last.name == "diffs" else inputs
        usage += [f"{i}=array" for i in names]
        hint = f"arrays are given by name; this net's inputs are {quoted(inputs)}"
    return f"{name}: expected {name}({', '.join(usage)}), got {came or 'nothing'}; {hint}"


@dataclass
class Plan:
    """What a forward and a backward pass call, in order; see Net.plan.

    Attributes:
        losses: names of the layers whose backward pass is part of the forward pass.
        updates: calls that change parameters, after the backward pass, without their diffs.
        updated: names of these parameters.
        forward_checked, backward_checked: whether a first pass has shown that the layers keep their
            contract with the net.
        programs: what engines keep to make these calls again; see ArrayEngine.repeat.
    """

    forward: list[Forward] = field(default_factory=list)
    backward: list[Backward] = field(default_factory=list)
    losses: set[str] = field(default_factory=set)
    updates: list[Backward] = field(default_factory=list)
    updated: set[str] = field(default_factory=set)
    forward_checked: bool = False
    backward_checked: bool = False
    programs: dict[str, dict[Any, Any]] = field(
        default_factory=lambda: {"forward": {}, "backward": {}, "look": {}, "update": {}}
    )

    def __repr__(self) -> str:
        return (
            f"Plan({len(self.forward)} forward calls, {len(self.backward)} backward calls, "
            f"{len(self.updated)} parameters updated by layers)"
        )


@checks
class Net(Closed):
    """A runnable net made from a list of layers.

    Args:
        layers: layer descriptions in any order; each is copied, so a list can make several nets.
        batch_size: the most examples in one pass; memory is allocated for this many.
        backend: "numpy", "cupy" or "auto".
        dtype: "float32" or "float64".
        seed: of the initial parameters and of everything random in the layers.
        phase: "train" or "test"; layers such as Dropout and data augmentation act in "train" only.
        share: a net whose parameters this one uses (by name) instead of having its own.
        gradients: which blobs get a diff: those that lead from a trainable parameter to a loss
            ("parameters", the default in phase "train"), every blob ("all"), or none ("none", the
            default in phase "test").
        kernels: "auto" runs compiled kernels where there are any, of C++ on the CPU and of CUDA on
            the GPU; "array" the array code that is their specification.
        tf32: on a GPU, lets matrix products of float32 round their factors to 10 bits, which is
            faster.  False by default.

    Attributes:
        layers: name -> Layer, in the order in which they run.
        blobs: name -> Blob.
        params: "layer/parameter" -> Parameter.
        arena: the flat arrays behind the parameters.
        losses: name -> mean over the examples of each loss layer, unweighted, of the last pass.
        metrics: the same for metric layers such as Accuracy.
        reported: the layers that losses and metrics come from, losses first.
        regularisation: the L1 and L2 terms of the last pass.
        run: what the layers share: seed, pass number, phase.
        engine: how layers are run; see layerkit.engines.
        runners: layer name -> the layer with the code that runs it.
        version: changes whenever blobs are given diffs, or none, anew.
        passed: whether there is a forward pass that `backward` can differentiate.
        lock: held by every call of this net, of its solvers and of the nets that share parameters
            with it, so several threads can use them: one call runs after another.  Hold it
            (`with net.lock:`) to read blobs or diffs before another thread's next call.

    A net cannot be copied or pickled; `rebuild` makes another one, `layerkit.save` a file.

    Raises:
        NetError: layers that cannot be wired; the message names the layer and what is wrong.
        BackendError: the backend is not there.
    """

    fixed = (
        "layers", "batch_size", "backend", "dtype", "seed", "phase", "share", "gradients",
        "kernels", "tf32", "blobs", "params", "descriptions", "losses", "metrics",
    )
    instead = "make another net, with net.rebuild(dtype=...), say, or Net(layers)"

    def __init__(
        self, layers: Sequence[Layer], batch_size: Count = 64,
        backend: Annotated[str, Name()] = "numpy",
        dtype: Annotated[str, Precision()] = "float32", seed: Seed = 0,
        phase: Annotated[str, Choice("train", "test")] = "train", share: Net | None = None,
        gradients: Annotated[str, Choice("parameters", "all", "none")] | None = None,
        kernels: Annotated[str, Choice("auto", "array")] = "auto", tf32: Flag = False,
    ):
        if gradients is None:
            gradients = "parameters" if phase == "train" else "none"
        if share is not None and not isinstance(share, Net):
            raise NetError(f"Net: share must be another net, or None, got {brief(share)}")
        if isinstance(layers, Layer | str) or not isinstance(layers, Iterable):
            raise NetError(
                f"a net is made from a list of layers, got {brief(layers)}; put it in a list"
            )
        self.lock: Any = threading.RLock() if share is None else share.lock
        self.backend = backends.get(backend, tf32)
        self.xp = self.backend.xp
        self.dtype = np.dtype(dtype)
        self.gradients = gradients
        self.kernels = kernels
        self.run = Run(self.backend, self.dtype, batch_size, seed, phase == "train")
        self.engine = ArrayEngine(self.xp)
        if kernels == "auto" and self.backend.name == "numpy":
            self.engine = cpu.engine() or self.engine
        self.tf32 = tf32
        layers = list(layers)
        ordered = sort_layers(layers)
        for layer in layers:
            if "run" in vars(layer):
                layer.fail(
                    "belongs to a net already; make another from the list of layers that it was "
                    "made from, or from net.descriptions"
                )
        self.descriptions = [layer.copied() for layer in layers]
        self.layers: Named[Layer] = Named(
            "layer", {layer.name: layer.attach(self.run) for layer in ordered},
            "change net.descriptions and make another net of them",
        )
        if kernels == "auto" and self.backend.name == "cupy":
            self.run.device = Device(self.xp, self.dtype, len(self.sources()))
            for place, source in enumerate(self.sources()):
                source.place = place
        shapes = self._set_up()
        if self.run.device is not None:
            for layer in self.layers.values():
                layer.use_kernels()
        self.runners = {name: self.engine.bind(layer) for name, layer in self.layers.items()}
        self.params: Named[Parameter] = Named(
            "parameter", self._gather_parameters(),
            "write into its array: net.params[name].data[...] = values",
        )
        self._check_memory(shapes, share is not None)
        self.arena = self._make_arena(share)
        blobs = {
            name: Blob.allocate(name, batch_size, shape, self.backend, self.dtype)
            for name, shape in shapes.items()
        }
        made = list(self.layers.values())
        self.reported = [x for x in made if x.is_loss] + [x for x in made if x.is_metric]
        if self.run.device is not None:  # side by side, so that one kernel can read them all
            self.values = self.backend.zeros((len(self.reported), batch_size), self.dtype)
            for x, values in zip(self.reported, self.values, strict=True):
                blobs[x.tops[0]] = Blob(x.tops[0], values)
        self.blobs: Named[Blob] = Named(
            "blob", blobs, "write into its array: net.blobs[name].data[...] = values"
        )
        self._forward = [
            (layer, [self.blobs[b] for b in layer.bottoms], [self.blobs[t] for t in layer.tops])
            for layer in self.layers.values()
        ]
        self._inputs = [layer for layer in self.layers.values() if isinstance(layer, Input)]
        self._means = self.backend.zeros((len(self.reported),), "float64")
        self._each_mean = [self._means[i : i + 1] for i in range(len(self.reported))]
        self._shares = np.zeros((len(self.reported), 1))
        self._settings = [
            runner.settings for runner in self.runners.values()
            if type(runner).settings is not Runner.settings
        ]
        self._mirror = Mirror(self)
        self._inferences: dict[tuple[tuple[str, ...], tuple[str, ...]], Inference] = {}
        self._rows = batch_size
        self.passed = False
        self.version = 0
        self._plan_backward()
        self.losses: Named[float] = Named("loss")  # none before the first pass
        self.metrics: Named[float] = Named("metric")
        self.regularisation = 0.0

    # Building.

    def _set_up(self) -> dict[str, Shape]:
        """Sets every layer up in order; returns the shape of every blob."""
        shapes: dict[str, Shape] = {}
        for layer in self.layers.values():
            try:
                given = layer.setup([shapes[b] for b in layer.bottoms])
            except (MemoryError, OverflowError, ValueError) as error:
                if isinstance(error, ValueError) and "dimension exceeded" not in str(error):
                    raise  # not NumPy's word for arrays beyond all bounds
                layer.fail(f"its work space is too large for this computer ({error})")
            layer.declaring = False
            layer.close()
            try:
                if not isinstance(given, tuple | list):
                    raise ValueError
                tops = [checked_shape(shape) for shape in given]
            except ValueError:
                layer.fail(
                    "setup must return a list of shapes, one for each top, without the batch axis "
                    f"and of sizes below 2^31, such as [(3,)], got {brief(given)}"
                )
            if len(tops) != len(layer.tops):
                layer.fail(f"has {len(tops)} tops, but tops= names {len(layer.tops)}: {layer.tops}")
            if (layer.is_loss or layer.is_metric) and tops != [()]:
                layer.fail(f"must have one top of one value per example, got shapes {tops}")
            shapes.update(zip(layer.tops, tops, strict=True))
        return shapes

    def _gather_parameters(self) -> dict[str, Parameter]:
        """All parameters by name, each of one layer only, which declared it."""
        found: dict[str, Parameter] = {}
        owners: dict[str, Layer] = {}
        for layer in self.layers.values():
            for p in layer.parameters.values():
                if p.name in found:
                    own = found[p.name] is p
                    layer.fail(
                        f"its parameter {p.name!r} is one of layer {owners[p.name].name!r} too; "
                        + (SHARING if own else "rename one of the layers")
                    )
                found[p.name], owners[p.name] = p, layer
        for layer in self.layers.values():
            for p in held_parameters(layer):
                if p not in layer.parameters.values():
                    layer.fail(f"holds parameter {p.name!r}, which it has not declared; {SHARING}")
        return found

    def _check_memory(self, shapes: dict[str, Shape], shared: bool) -> None:
        """Fail where parameters and blobs cannot be held, before any of them is made."""
        rows, size = self.run.batch_size, self.dtype.itemsize * (1 + (self.gradients != "none"))
        needs = {
            layer: size * rows * sum(math.prod(shapes[t]) for t in layer.tops)
            + sum(p.size for p in layer.parameters.values()) * (0 if shared else size)
            for layer in self.layers.values()
        }
        need, free = sum(needs.values()), self.run.memory()
        if self.backend.name == "numpy" and not shared:
            need += DRAWING * max((p.size for p in self.params.values()), default=0)
        if need > free:
            largest = max(needs, key=lambda layer: needs[layer])
            largest.fail(
                f"its parameters and tops would take {in_words(needs[largest])} for a batch of "
                f"{rows}; to be made the net needs {in_words(need)} in all, and {in_words(free)} "
                "are free"
            )

    def _make_arena(self, share: Net | None) -> Arena:
        declared = list(self.params.values())
        if share is None:
            arena = Arena(declared, self.backend, self.dtype, self.gradients != "none")
            for p in declared:

                def normal(shape: Shape, name: str = p.name) -> np.ndarray:
                    return philox.normal(np, shape, self.run.seed, self.run.stream_of(name), 0)

                what = f"parameter {p.name!r}: what its initialiser draws"
                values = narrowed(numbers(p.init.draw(p.shape, normal), what), self.dtype, what)
                if values.shape != p.shape:
                    raise NetError(f"{what} must have shape {p.shape}, got {values.shape}")
                if not np.isfinite(values).all():
                    raise NetError(f"{what} must be finite numbers, also in {self.dtype}")
                p.data[...] = self.backend.asarray(values, self.dtype)
            return arena
        if (share.backend.name, share.dtype) != (self.backend.name, self.dtype):
            raise NetError(
                f"share: the other net is {share.dtype} on {share.backend.name}, this one is "
                f"{self.dtype} on {self.backend.name}; they must be alike"
            )
        if self.gradients != "none" and share.arena.diff is None:
            raise NetError("share: the other net has no gradients; share from the training net")
        for p in declared:
            other = share.params.get(p.name)
            if other is None or other.shape != p.shape:
                had = f"has shape {other.shape} there" if other else "is not in the other net"
                raise NetError(f"share: parameter {p.name!r} of shape {p.shape} {had}")
            p.bind(other.data, other.diff, other.offset)
        arena = copy.copy(share.arena)  # the same arrays, but this net freezes for itself
        arena.parameters = {p.name: p for p in declared}
        return arena

    def _plan_backward(self) -> None:
        """Decides which blobs get a diff, and who writes where in the backward pass."""
        self.version += 1
        layers = list(self.layers.values())
        active = needing_gradients(layers, self.gradients)
        self._idle = [p for x in layers if x not in active for p in x.parameters.values()]
        with_diff = {top for layer in active for top in layer.tops}
        readers = readers_of(active, with_diff)

        rows, size = self._rows, self.run.batch_size
        self._resize(size)
        for name, blob in self.blobs.items():
            blob.set_diff(
                self.backend.zeros((size, *blob.shape), self.dtype) if name in with_diff else None
            )
        views: dict[tuple[str, int], Blob] = {}
        branches: dict[str, list[Blob]] = {}
        for name, places in readers.items():
            blob = self.blobs[name]
            if len(places) == 1:
                views[places[0]] = blob  # the only reader writes the blob's own diff
            else:
                # Added up by name: the list's order must not decide how the sum is rounded.
                places = sorted(places)
                branches[name] = [
                    blob.branch(self.backend.zeros((size, *blob.shape), self.dtype)) for _ in places
                ]
                views.update(zip(places, branches[name], strict=True))
        self._branches = [b for group in branches.values() for b in group]
        self._cut: list[Blob] = []  # bottoms whose reader must not write a diff
        self._backward = []
        for layer in reversed(active):
            bottoms = []
            for i, name in enumerate(layer.bottoms):
                if (layer.name, i) not in views:
                    views[layer.name, i] = self.blobs[name].branch(None)
                    self._cut.append(views[layer.name, i])
                bottoms.append(views[layer.name, i])
            tops = [self.blobs[t] for t in layer.tops]
            gathers = [(t, branches[t.name]) for t in tops if t.name in branches]
            self._backward.append((layer, bottoms, tops, gathers))
        self._resize(rows)
        self._plan = self.plan(at_once=False)

    def _resize(self, rows: int) -> None:
        self._rows = rows
        for blob in self.blobs.values():
            blob.resize(rows)
        for blob in [*getattr(self, "_branches", ()), *getattr(self, "_cut", ())]:
            blob.resize(rows)
        for layer in self.layers.values():
            for buffer in layer.buffers:
                buffer.resize(rows)

    # Parameters.

    @settings.fitting(NetError)
    def freeze(self, *patterns: str) -> None:
        """Stops training the parameters whose names match, such as "g1/weight" or "g*".

        Blobs that no trainable parameter needs any more lose their diff.

        Raises:
            NetError: a pattern that matches no parameter.
        """
        self._set_trainable(patterns, False)

    @settings.fitting(NetError)
    def unfreeze(self, *patterns: str) -> None:
        """Trains the parameters whose names match again."""
        self._set_trainable(patterns, True)

    @serialised
    def _set_trainable(self, patterns: Iterable[str], trainable: bool) -> None:
        matches: list[Parameter] = []
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise NetError(f"a pattern is a string such as 'g1/weight', got {brief(pattern)}")
            names = [(p, (p.name, p.name.rpartition("/")[0])) for p in self.params.values()]
            # A name is that very name, though it may hold what patterns do: "block[1]".
            found = [p for p, own in names if pattern in own] or [
                p for p, own in names if any(fnmatch.fnmatchcase(name, pattern) for name in own)
            ]
            if not found:
                raise NetError(f"no parameter matches {pattern!r}; there are {quoted(self.params)}")
            matches += found
        for p in matches:
            p.trainable = trainable
        self._plan_backward()

    # Running.

    @QUIET
    @serialised
    @flushing
    def forward(self, /, **inputs: Any) -> float:
        """Runs every layer; returns the objective.

        Args:
            inputs: one array for the blob of each Input layer, of n rows each, n at most the batch
                size.  Rows may have any shape with the right number of elements.

        Returns:
            The sum over loss layers of weight * loss (a mean per example), plus L1 and L2 terms.

        Raises:
            NetError: a missing, unknown or misshapen input, masked values, or integers that do not
                keep their value in the net's floats.
            ContractError: a layer that breaks its contract with the net.
        """
        return self.run_forward(self._plan, inputs)

    @serialised
    def feed(self, inputs: dict[str, Any]) -> None:
        """Put the values of Input layers in place, and with them the number of rows.

        Without inputs a pass has as many rows as the net's batch size; in phase "test" only as many
        as the data layers have left in their epoch.
        """
        blobs = [self.blobs[layer.tops[0]] for layer in self._inputs]
        names = self.input_names()
        if not isinstance(inputs, dict):
            raise NetError(f"feed: expected a dict of arrays by name, got {brief(inputs)}")
        if inputs.keys() != set(names):
            unknown = next((n for n in inputs if n not in names), None)
            missing = next((n for n in names if n not in inputs), None)
            problem = f"input {missing!r} is missing: call with {missing}=array"
            if unknown is not None:
                problem = f"no Input layer has a blob {unknown!r}"
                if any(unknown in source.tops for source in self.sources()):
                    problem += ", which a data layer fills"
            raise NetError(
                f"{problem}; this net's inputs are {quoted(names)}, and {quoted(inputs)} came"
            )
        left, rows = self._rows_left(), None
        arrays = []
        for blob in blobs:
            array = self._fitting(blob, inputs[blob.name])
            if rows not in (None, len(array)):
                raise NetError(
                    f"blob {blob.name!r}: got {len(array)} rows, but the other inputs have {rows}"
                )
            rows = len(array)
            # What another input of this net holds is overwritten before it is read.
            shared = any(self.xp.may_share_memory(array, b.data) for b in blobs)
            arrays.append(array.copy() if shared else array)
        if rows is None:
            rows = left
        elif not self.run.training and rows > left:
            raise NetError(
                f"blob {names[0]!r}: got {rows} rows, but the data layers have {left} left in this "
                "epoch, and in phase 'test' a pass ends with it"
            )
        if rows != self._rows:
            self._resize(rows)
        for blob, array in zip(blobs, arrays, strict=True):
            blob.data[...] = array

    def input_names(self) -> list[str]:
        """The blobs that a caller gives to each pass."""
        return [layer.tops[0] for layer in self._inputs]

    def _rows_left(self) -> int:
        """How many rows a pass without inputs has."""
        left = [self.run.batch_size]
        if not self.run.training:  # so that each example is seen once in an epoch
            left += [x.count - x.position % x.count for x in self.sources()]
        return min(left)

    def fill(self, blob: Blob, array: Any) -> None:
        """Copy what a caller gave for this blob into it; the rows must be as many."""
        blob.data[...] = self._fitting(blob, array)

    def _fitting(self, blob: Blob, array: Any) -> Array:
        """The array of a caller, on the backend and of the shape that the blob has."""
        array = self._asarray(array, blob.name)
        n = len(array) if array.ndim else 0
        if not 0 < n <= self.run.batch_size or not keeps_axes(array.shape[1:], blob.shape):
            limit = f" with n from 1 to {self.run.batch_size} (the batch size)"
            raise NetError(self._misfit(blob, array.shape, limit))
        return array.reshape(n, *blob.shape)

    def _misfit(self, blob: Blob, given: Shape, limit: str = "") -> str:
        """What to say of an array of a shape that a blob does not take."""
        example, said = tuple(given[1:]), ""
        if tuple(given) == blob.shape:
            said = "; one example needs the batch axis too: array[None]"
        elif math.prod(example) == math.prod(blob.shape) and not keeps_axes(example, blob.shape):
            said = "; its axes are in another order: transpose it"
        return (
            f"blob {blob.name!r}: expected an array of shape "
            f"{_rows(blob.shape)}{limit}, got {tuple(given)}{said}"
        )

    def _asarray(self, array: Any, name: str, dtype: Any = None) -> Array:
        """What a caller gave for a blob, on the backend; an error names the blob."""
        what = f"blob {name!r}"
        if self.xp is np or not isinstance(array, self.xp.ndarray):
            array = numbers(array, what)
        elif array.dtype.kind not in NUMBERS:
            raise NetError(f"{what}: expected an array of numbers; it holds {array.dtype}")
        check_exact(array, self.dtype, what)
        if isinstance(array, np.ndarray):
            array = narrowed(array, self.dtype, what)
        return self.backend.asarray(array, dtype)

    def _objective(self) -> float:
        total = 0.0
        if self.reported:
            for layer, mean in zip(self.reported, self.backend.to_host(self._means), strict=True):
                if layer.is_loss:
                    self.losses[layer.name] = float(mean)
                    total += layer.weight * float(mean)
                else:
                    self.metrics[layer.name] = float(mean)
        self.regularisation = 0.0
        for p in self.params.values():
            if p.l1:
                self.regularisation += p.l1 * float(self.xp.abs(p.data).sum(dtype="float64"))
            if p.l2:
                self.regularisation += p.l2 / 2 * float(self.xp.square(p.data).sum(dtype="float64"))
        return total + self.regularisation

    @QUIET
    @serialised
    @flushing
    def backward(self, /, **diffs: Any) -> None:
        """Fills the diff of every trainable parameter and of every blob that needs one.

        Differentiates the objective of the last forward pass.

        Args:
            diffs: for any named blob, the derivative of some further objective with respect to it,
                which is added to what comes from the losses.

        Raises:
            NetError: a net without gradients, a named blob without a diff, or no forward pass since
                the net was built or its parameters last changed.
            ContractError: a layer that breaks its contract with the net.
        """
        if self.gradients == "none":
            raise NetError("this net has no gradients; build it with gradients='parameters'")
        if not self.passed:
            raise NetError(
                "backward: there is no forward pass to differentiate, or a solver's step, a "
                "snapshot or an error has come after it; call net.forward first"
            )
        for name in diffs:
            if name not in self.blobs or self.blobs[name].diff is None:
                why = "has no diff" if name in self.blobs else (
                    f"is not in the net; {closest(name, self.blobs)}"
                )
                raise NetError(f"backward: blob {name!r} {why}")
            # A copy, as it may be a diff of this net, which the pass overwrites.
            diffs[name] = self._asarray(diffs[name], name, self.dtype).copy()
            if diffs[name].shape != self.blobs[name].diff.shape:
                raise NetError(
                    f"backward: the diff of blob {name!r} has shape "
                    f"{tuple(self.blobs[name].diff.shape)}, got {tuple(diffs[name].shape)}"
                )
        self.run_backward(self._plan, diffs)

    def plan(self, update: Any = None, at_once: bool = True) -> Plan:
        """The calls of a training step, in which layers do at once what they can; for solvers.

        A loss whose top nothing else reads computes its diffs together with its value: what they
        are multiplied by, weight / rows, is known beforehand.  A layer whose parameters are all
        trained, and none regularised, changes them without filling their diffs.  It does so when
        the backward pass is over, and all gradients are known to be finite.

        Args:
            update: an engines.base.Update for layers that can update their parameters, or None.
            at_once: False for the calls of `forward` and `backward`, each on its own.
        """
        plan = Plan()
        backward = {layer.name: (bottoms, tops) for layer, bottoms, tops, _ in self._backward}
        read = {b for layer in self.layers.values() for b in layer.bottoms}
        for layer, bottoms, tops in self._forward:
            runner = self.runners[layer.name]
            call = runner.forward
            both = at_once and layer.is_loss and runner.forward_backward is not None
            if both and layer.name in backward and tops[0].name not in read:
                plan.losses.add(layer.name)
                call, (bottoms, tops) = runner.forward_backward, backward[layer.name]
            plan.forward.append(Forward(layer, call, bottoms, tops, runner.recordable))
        for layer, bottoms, tops, gathers in self._backward:
            runner = self.runners[layer.name]
            call = runner.backward
            own = layer.parameters.values()
            plain = own and all(p.trainable and not p.l1 and not p.l2 for p in own)
            if update is not None and plain and runner.backward_update is not None:
                plan.updated.update(p.name for p in own)
                change = functools.partial(runner.backward_update, update=update)
                plan.updates.append(
                    Backward(layer, change, bottoms, tops, runner.recordable, [])
                )
                call = runner.backward_bottoms
            if layer.name not in plan.losses:
                plan.backward.append(
                    Backward(layer, call, bottoms, tops, runner.recordable, gathers)
                )
        return plan

    def run_forward(self, plan: Plan, inputs: dict[str, Any]) -> float:
        """A forward pass by a plan; returns the objective."""
        self.feed(inputs)
        self.passed = False
        self.run.passes += 1
        if self.run.device is not None:
            self.set_clock()
            self.prepare()
        for layer, _, _, tops, _ in plan.forward:
            if layer.name in plan.losses:
                tops[0].diff.fill(layer.weight / self._rows)

        def calls(make: Make) -> None:
            for layer, call, bottoms, tops, recordable in plan.forward:
                make(recordable, layer, call, bottoms, tops, way="forward")
            for layer, mean in zip(self.reported, self._each_mean, strict=True):
                self.engine.mean(self.blobs[layer.tops[0]].data, mean)

        if plan.forward_checked:
            self.engine.repeat(plan.programs["forward"], self.program_key(), calls)
        else:
            calls(functools.partial(self._check_forward, plan.losses))
        plan.forward_checked = self.passed = True
        if self.run.device is not None:
            self.look_ahead()
        return self._objective()

    def run_backward(self, plan: Plan, diffs: dict[str, Array]) -> None:
        """A backward pass by a plan."""
        losses = [call for call in plan.backward if call.layer.is_loss]
        shares = self._shares[: len(losses)]
        shares[:, 0] = [call.layer.weight / self._rows for call in losses]
        share_of = {call.layer.name: share for call, share in zip(losses, shares, strict=True)}

        def calls(make: Make) -> None:
            for layer, call, bottoms, tops, recordable, gathers in plan.backward:
                for top, branches in gathers:
                    self.engine.add_up([b.diff for b in branches], top.diff)
                if layer.is_loss:
                    self.engine.add_number(share_of[layer.name], tops[0].diff)
                for top in tops:
                    if top.name in diffs:
                        top.diff += diffs[top.name]
                make(recordable, layer, call, bottoms, tops, way="backward")

        if not plan.backward_checked:
            calls(functools.partial(self._check_backward, plan.updated))
        elif diffs:
            calls(call_layer)
        else:
            self.engine.repeat(plan.programs["backward"], self.program_key(), calls)
        plan.backward_checked = True
        for p in self._idle:
            p.diff.fill(0)
        for p in self.params.values():
            if p.trainable and p.l1:
                p.diff += p.l1 * self.xp.sign(p.data)
            if p.trainable and p.l2:
                p.diff += p.l2 * p.data

    def program_key(self) -> tuple[Any, ...]:
        """Return all but the plan that decides what calls of layers do: rows and settings."""
        self.run.clock()
        return self._rows, *[settings() for settings in self._settings]

    @staticmethod
    def _check_forward(
        losses: set[str], recordable: bool, layer: Layer, call: Any, bottoms: list[Blob],
        tops: list[Blob], way: str,
    ) -> None:
        contract.forward(layer, call, bottoms, tops, losses)

    @staticmethod
    def _check_backward(
        updated: set[str], recordable: bool, layer: Layer, call: Any, bottoms: list[Blob],
        tops: list[Blob], way: str,
    ) -> None:
        contract.backward(layer, call, bottoms, tops, updated)

    @QUIET
    @serialised
    @flushing
    def infer(self, outputs: str | Sequence[str], /, sample: bool = True, **given: Any) -> Any:
        """The values of some blobs given those of others; runs only the layers in between.

        Any blob can be given, not only inputs: `net.infer("x_mean", z=z)` decodes.  Layers act as
        in phase "test", so nothing is left out by Dropout.  Nothing in the net changes: neither its
        blobs and diffs nor the noise of later passes.

        Args:
            outputs: the name of a blob, or a list of names.
            sample: False makes sampling layers return the mean of what they sample.
            given: arrays of any number of rows, the same for all; they pass in batches.

        Returns:
            A NumPy array of shape (rows, *shape), or a list of them where `outputs` is a list.

        Raises:
            NetError: an unknown blob, an array that does not fit, or an input that is needed.
        """
        if not isinstance(sample, bool | np.bool_):
            raise NetError(
                f"infer: sample= must be True or False, got {brief(sample)}; a blob of that name "
                "cannot be given"
            )
        names = [outputs] if isinstance(outputs, str) else outputs
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            raise NetError(
                f"infer: expected the name of a blob, or a list of names, got {brief(names)}"
            )
        key = (tuple(names), tuple(sorted(given)))
        if key not in self._inferences:
            self._inferences[key] = Inference(self, self._mirror, names, given)
        arrays, total = self.examples("infer", given)
        collected = [np.empty((total, *self.blobs[n].shape), self.dtype) for n in names]
        for start in range(0, total, self.run.batch_size):
            stop = min(start + self.run.batch_size, total)
            batch = {name: array[start:stop] for name, array in arrays.items()}
            values = self._inferences[key].run(stop - start, batch, bool(sample))
            for whole, part in zip(collected, values, strict=True):
                whole[start:stop] = part
        return collected[0] if isinstance(outputs, str) else collected

    def examples(self, what: str, given: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Return arrays for blobs, which can be sliced, and how many rows all of them have.

        Args:
            what: the name of the function that they were given to.
            given: what a caller gave, any number of rows for each blob.

        Raises:
            NetError: nothing, an unknown blob, an array that does not fit, or of other rows.
        """
        if not given:
            raise NetError(f"{what}: give at least one blob, such as x=images")
        for name in given:
            if name not in self.blobs:
                raise NetError(f"{what}: no blob {name!r}; {closest(name, self.blobs)}")
        arrays = {name: self._sliceable(name, array) for name, array in given.items()}
        rows = {name: len(array) for name, array in arrays.items()}
        total = max(rows.values())
        if min(rows.values()) != total or total == 0:
            raise NetError(
                f"{what}: the given arrays must have the same number of rows, at least 1, got "
                f"{rows}"
            )
        for name, array in arrays.items():
            if not keeps_axes(tuple(array.shape[1:]), self.blobs[name].shape):
                raise NetError(self._misfit(self.blobs[name], array.shape))
        return arrays, total

    def _sliceable(self, name: str, array: Any) -> Any:
        """What was given for a blob as an array; a data set of HDF5 stays in its file."""
        given, in_file = array, type(array).__module__.split(".")[0] == "h5py"
        if not in_file and not isinstance(array, np.ndarray | self.xp.ndarray):
            array = numbers(given, f"blob {name!r}")
        if not array.shape:
            raise NetError(
                f"blob {name!r}: expected an array of shape {_rows(self.blobs[name].shape)}, got "
                f"{brief(given)}"
            )
        return array

    @serialised
    def evaluate(self) -> dict[str, float]:
        """The mean of each loss and metric over all examples of the data layers, each seen once.

        For nets of phase "test": `Net(layers, phase="test", share=net).evaluate()`.  The last batch
        has fewer rows, and weighs less.  Noise is that of the passes that would come next; seed,
        pass and data positions are then as they were.

        Returns:
            Layer name -> mean, unweighted, losses first.

        Raises:
            NetError: a net of phase "train", with Input layers, or without data layers.
        """
        counts = {x.name: x.count for x in self.sources()}
        if self.run.training:
            raise NetError("evaluate: make a net of phase 'test' for it, with share= this one")
        if self._inputs or len(set(counts.values())) != 1:
            raise NetError(
                "evaluate: the data must come from data layers (layerkit.with_data) of equal "
                f"length; there are {counts or 'none'}, and inputs "
                f"{quoted(self.input_names())}"
            )
        state, kept = self.state(), (self.losses.copy(), self.metrics.copy())
        means = Named("loss or metric", {layer.name: 0.0 for layer in self.reported})
        count, seen = max(counts.values()), 0
        try:
            for source in self.sources():
                source.position = 0
            while seen < count:
                self.forward()
                seen += self._rows
                for name, value in {**self.losses, **self.metrics}.items():
                    means[name] += value * self._rows / count
        finally:
            for mapping, values in zip((self.losses, self.metrics), kept, strict=True):
                mapping.clear()
                mapping.update(values)
            self.set_state(state)
        return means

    # State.

    @serialised
    def state(self) -> dict[str, int]:
        """What, besides the parameters, decides the next pass: seed, pass and data positions."""
        positions = {f"position/{x.name}": x.position for x in self.sources()}
        return {"seed": self.run.seed, "passes": self.run.passes, **positions}

    @serialised
    def set_state(self, state: dict[str, int]) -> None:
        """Puts back what `state` returned.

        Raises:
            NetError: something is missing, or no whole number in bounds; nothing has changed then.
        """
        own = self.state()
        if not isinstance(state, dict):
            raise NetError(f"state: expected what net.state() returned, got {brief(state)}")
        for name in own:
            value = state.get(name)
            least, most = (-(2**63), 2**63 - 1) if name == "seed" else (0, COUNTED)
            if not isinstance(value, int | Integral) or not least <= int(value) <= most:
                raise NetError(
                    f"state: {name!r} must be a whole number from {least} to {most}, got "
                    f"{brief(value)}; the state of this net has {quoted(own)}"
                )
        self.passed = False
        self.run.seed, self.run.passes = int(state["seed"]), int(state["passes"])
        for source in self.sources():
            source.position = int(state[f"position/{source.name}"])

    def set_clock(self) -> None:
        """Tells the GPU's kernels which pass this is."""
        if self.run.device is not None:
            self.run.device.set_clock(self.run.passes, [x.position for x in self.sources()])

    def prepare(self) -> None:
        """Before a forward pass on a GPU: the data that it takes are put in order or fetched."""
        for source in self.sources():
            source.prepare()

    def look_ahead(self) -> None:
        """After it: the data of the next pass, should it follow, are on their way."""
        for source in self.sources():
            source.look_ahead()

    @property
    def rows(self) -> int:
        """How many examples the last pass had, or the next has unless other inputs come."""
        return self._rows

    def sources(self) -> list[Any]:
        """The data layers."""
        return [layer for layer in self.layers.values() if layer.is_source]

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise NetError(
            "a net cannot be copied or pickled, as its layers hold views of each other's memory; "
            "net.rebuild() makes another with the same layers and values, layerkit.save a file"
        )

    @serialised
    def rebuild(self, **changes: Any) -> Net:
        """The same layers in a new net with the same parameter values, weights and state.

        Args:
            changes: arguments of Net that differ, such as dtype="float64" or gradients="all".
        """
        settings: dict[str, Any] = {
            "batch_size": self.run.batch_size, "backend": self.backend.name,
            "dtype": self.dtype.name, "seed": self.run.seed,
            "phase": "train" if self.run.training else "test", "gradients": self.gradients,
            "kernels": self.kernels, "tf32": self.tf32,
        }
        net = Net(self.descriptions, **{**settings, **changes})
        for name, p in self.params.items():
            if name in net.params:
                net.params[name].data[...] = net.backend.asarray(self.backend.to_host(p.data))
                net.params[name].trainable = p.trainable
        for name, layer in self.layers.items():
            if layer.is_loss:
                net.layers[name].weight = layer.weight
        net.set_state({**self.state(), "seed": net.run.seed})
        return net

    def check_data(self) -> None:
        """Fail where a layer's bottoms hold what it cannot work on; see Layer.check_data.

        Raises:
            DataError: names the layer, and where what it got is.
        """
        for layer, bottoms, _ in self._forward:
            layer.check_data(bottoms)

    @serialised
    def non_finite_data(self) -> str | None:
        """Where an Input or data layer's tops hold an infinity or not-a-number, or None."""
        for layer in [*self._inputs, *self.sources()]:
            for top in layer.tops:
                data = self.blobs[top].data
                bad = ~self.xp.isfinite(data.reshape(len(data), -1)).all(axis=1)
                if bool(bad.any()):
                    return f"row {int(bad.argmax())} of the batch in blob {top!r}"
        return None

    @serialised
    def first_non_finite(self) -> str | None:
        """The first parameter, blob or diff that holds an infinity or not-a-number, or None."""
        isfinite = self.xp.isfinite
        for name, p in self.params.items():
            if not bool(isfinite(p.data).all()):
                return f"parameter {name!r}"
        for name, blob in self.blobs.items():
            if not bool(isfinite(blob.data).all()):
                return f"blob {name!r}"
        for _, _, tops, _ in self._backward:
            for blob in tops:
                if not bool(isfinite(blob.diff).all()):
                    return f"the diff of blob {blob.name!r}"
        for name, p in self.params.items():
            if p.diff is not None and p.trainable and not bool(isfinite(p.diff).all()):
                return f"the diff of parameter {name!r}"
        return None

    def __str__(self) -> str:
        """A table: layer, type, bottoms -> tops, shapes of the tops, number of parameters."""
        rows = [("layer", "type", "bottoms -> tops", "shapes", "parameters")]
        for layer in self.layers.values():
            rows.append((
                layer.name, type(layer).__name__,
                f"{', '.join(layer.bottoms)} -> {', '.join(layer.tops)}".strip(),
                ", ".join(f"({_shape(self.blobs[t].shape)})" for t in layer.tops),
                f"{sum(p.size for p in layer.parameters.values()):,}" if layer.parameters else "",
            ))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        lines.insert(1, "  ".join("-" * w for w in widths))
        count = sum(p.size for x in self.layers.values() for p in x.parameters.values())
        lines.append(
            f"{count:,} parameters, {self.dtype} on {self.backend.name}, "
            f"up to {self.run.batch_size} examples in a pass"
        )
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(str(self))


SHARING = "a parameter belongs to one layer of a net; nets share parameters with share="


def held_parameters(layer: Layer) -> list[Parameter]:
    """The parameters among a layer's attributes, or in lists and dictionaries there."""
    found = []
    for name, value in vars(layer).items():
        if name != "parameters":
            inside = value.values() if isinstance(value, dict) else value
            values = inside if isinstance(value, list | tuple | dict) else [value]
            found += [p for p in values if isinstance(p, Parameter)]
    return found


def _shape(shape: Shape) -> str:
    return ", ".join(map(str, shape))


def _rows(shape: Shape) -> str:
    return str(("n", *shape)).replace("'", "")
