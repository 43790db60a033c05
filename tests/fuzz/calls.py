"""Random nets with plausible and implausible settings, names, inputs and calls.

A case builds a net from random layers, trains it for a few steps, saves and loads it.  In two of
three cases one thing is odd: a setting, a name, an input or an argument.  The result is then right
or a LayerkitError; without anything odd it is right.  Right is what other ways to the same number
say: array code beside kernels, finite differences, another order of the list, a snapshot read back.
"""

from __future__ import annotations

import datetime
import inspect
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

import layerkit as lk
from fuzz.harness import Case, check
from layerkit import layers as L
from layerkit.errors import LayerkitError, NotFiniteError

SECONDS = 300  # the first use of a kernel compiles it
HUGE = 2**45  # more numbers than any machine has memory for

NEURONS = (None, None, "relu", "tanh", "sigmoid", "elu", "leaky_relu", "softplus", "prelu")
NAMES = (
    "",
    "/",
    "/a",
    ".",
    "..",
    "a/..",
    "a//b",
    "a/",
    "a\0b",
    "\ud800",
    "\N{GREEK SMALL LETTER MU}",
    "a b",
    "self",
    "sample",
    "count",
    "outputs",
    "inputs",
    "net",
    "name",
    "x" * 500,
    "x",
    "conv1/7x7_s2",
    "weight",
    "0",
    "a\nb",
    "$",
    "None",
    " ",
    None,
    True,
    3,
    b"x",
    ["x"],
    ("a", "b"),
    1.5,
    {},
)


def odd(case: Case) -> Any:
    """A value that few settings are meant to have."""
    return case.pick(
        [
            None,
            True,
            False,
            0,
            -1,
            1,
            2,
            3,
            7,
            1.0,
            0.5,
            1.5,
            -0.5,
            float("nan"),
            float("inf"),
            float("-inf"),
            1e300,
            1e-320,
            -0.0,
            2**31,
            2**63,
            10**30,
            HUGE,
            np.uint8(7),
            np.int64(3),
            np.uint64(2**63),
            np.float32(0.5),
            np.float64(0.25),
            np.float64("nan"),
            np.bool_(True),
            np.array(3),
            np.array([1, 2]),
            np.array([]),
            np.array(["a"]),
            np.ma.masked,
            "",
            "7",
            "relu",
            "he",
            ">f4",
            "x\0y",
            b"relu",
            [],
            [1, 2],
            [0.5],
            (),
            (3,),
            (2, 2),
            (-1,),
            (2.0,),
            (True,),
            ("a",),
            (HUGE,),
            {},
            {"a": 1},
            {1, 2},
            object(),
            int,
            np.float32,
            len,
            1 + 2j,
            Fraction(1, 2),
            Decimal("0.5"),
            range(3),
            lambda *_: 1,
            datetime.date(2020, 1, 1),
            np.datetime64("2020"),
            [[1], [2, 3]],
            np.dtype(">f4"),
            slice(3),
            NotImplemented,
            ...,
            L.Input("inner", shape=(2,)),
            lk.rates.Fixed(0.1),
            lk.initializers.Normal(0.1),
        ]
    )


class Builder:
    """A list of layers that grows, and the shapes of its blobs."""

    def __init__(self, case: Case):
        self.case, self.layers, self.count = case, [], 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.read: set[str] = set()

    def name(self) -> str:
        """A name that is new."""
        self.count += 1
        return f"b{self.count}"

    def blobs(self, good: Any = lambda shape: True) -> list[str]:
        """Blobs whose shape is good."""
        return [name for name, shape in self.shapes.items() if good(shape)]

    def add(self, kind: str, *bottoms: str, strange: bool = False, **settings: Any) -> str:
        """Add a layer; with `strange`, one of its arguments or its name becomes an odd value."""
        case, cls, name = self.case, getattr(L, kind), self.name()
        arguments: list[Any] = [name, *bottoms]
        if strange:
            names = [
                p.name
                for p in inspect.signature(cls).parameters.values()
                if p.kind == p.KEYWORD_ONLY
            ]
            place = case.whole(-2, len(names) - 1)
            if place == -2:
                arguments[0] = case.pick(NAMES)
            elif place == -1 and bottoms:
                arguments[case.whole(1, len(bottoms))] = case.pick(NAMES)
            elif place >= 0:
                settings[names[place]] = odd(case)
        case.say(
            f"L.{kind}(",
            *(f"{a!r:.80}," for a in arguments),
            *(f"{k}={v!r:.80}," for k, v in settings.items()),
            ")",
        )
        layer = cls(*arguments, **settings)
        self.layers.append(layer)
        self.shapes = {
            b: blob.shape
            for b, blob in lk.Net(self.layers, 2, phase="test", kernels="array").blobs.items()
        }
        for shape in self.shapes.values():
            check(all(type(n) is int for n in shape), f"a shape of other things than int: {shape}")
        self.read.update(layer.bottoms)
        return layer.tops[0]

    def input(self, shape: tuple[int, ...], prefix: str, **settings: Any) -> str:
        """Add an Input layer; its name tells what it holds."""
        name = f"{prefix}{self.name()}"
        said = "".join(f", {k}={v!r}" for k, v in settings.items())
        self.case.say(f"L.Input({name!r}, shape={shape!r}{said})")
        self.layers.append(L.Input(name, shape=shape, **settings))
        self.shapes[name] = shape
        return name


def weights(case: Case) -> dict[str, Any]:
    """Settings of layers with parameters, in their range."""
    found: dict[str, Any] = {}
    if case.chance(0.5):
        found["neuron"] = case.pick(NEURONS)
    if case.chance(0.3):
        found["weight"] = case.pick(["he", "xavier", 0.1, lk.initializers.Normal(0.2)])
    if case.chance(0.2):
        found["bias"] = case.pick([0.0, -0.5, 1, "he", np.float32(0.25), None])
    if case.chance(0.2):
        found[case.pick(["l1", "l2"])] = case.pick([0.01, 0, 1e-3])
    return found


def grow(case: Case, builder: Builder, strange: bool) -> None:
    """Add one random layer that fits."""
    kind = case.pick(
        [
            "Dense",
            "Dense",
            "Dense",
            "Convolution",
            "Deconvolution",
            "Pooling",
            "GlobalPooling",
            "Dropout",
            "ELU",
            "LeakyReLU",
            "ReLU",
            "Sigmoid",
            "Softplus",
            "Tanh",
            "Add",
            "Multiply",
            "Concat",
            "Slice",
            "Reshape",
            "Reparameterize",
            "GaussianKL",
            "SquareLoss",
            "BinaryCrossEntropy",
            "SoftmaxLoss",
            "Accuracy",
            "GaussianReconstruction",
            "StudentReconstruction",
            "SpatialTransform",
            "ImagePose",
            "Input",
        ]
    )
    any_blob = case.pick(builder.blobs(lambda s: s != ()))
    shape = builder.shapes[any_blob]
    size = int(np.prod(shape))
    images = builder.blobs(lambda s: len(s) in (2, 3))
    settings: dict[str, Any] = {}
    bottoms = [any_blob]
    if kind in ("Convolution", "Deconvolution", "Pooling"):
        if not images:
            return
        bottoms = [case.pick(images)]
        inputs, *sizes = builder.shapes[bottoms[0]]
        settings = {"kernel": case.whole(1, min(3, *sizes)), "stride": case.whole(1, 2)}
        if len(sizes) == 2 and case.chance(0.3):
            settings["stride"] = [1, 2]
        if kind == "Pooling":
            settings["mode"] = case.pick(["max", "mean"])
            settings["ceil"] = case.pick([False, True])
        else:
            settings["channels"] = case.whole(1, 3)
            settings |= weights(case)
            if inputs == settings["channels"]:
                settings["groups"] = case.pick([1, inputs])
        if kind != "Deconvolution" and settings["kernel"] > 1:
            settings["pad"] = case.whole(0, 1)
    elif kind == "GlobalPooling":
        if not images:
            return
        bottoms = [case.pick(images)]
        settings = {"mode": case.pick(["max", "mean"])}
    elif kind == "Dense":
        settings = {"units": case.whole(1, 9), **weights(case)}
    elif kind == "Dropout":
        settings = {"ratio": case.pick([0, 0.1, 0.5, 0.9])}
    elif kind == "ELU":
        settings = {"alpha": case.pick([0.5, 1, 2.0])}
    elif kind == "LeakyReLU":
        settings = {"slope": case.pick([0.01, 0.2, np.float64(0.1)])}
    elif kind in ("Add", "Multiply", "Concat"):
        alike = builder.blobs(lambda s: s == shape)
        bottoms = [case.pick(alike) for _ in range(case.whole(1, 3))]
    elif kind == "Slice":
        if shape[0] < 2:
            return
        cut = case.whole(1, shape[0] - 1)
        tops = [builder.name(), builder.name()]
        settings = {"tops": tops, "sizes": [cut, shape[0] - cut]}
    elif kind == "Reshape":
        settings = {"shape": case.pick([(size,), (1, size), (-1,), (size, 1, 1)])}
    elif kind in ("Reparameterize", "GaussianKL"):
        units = case.whole(1, 4)
        bottoms = [builder.add("Dense", any_blob, units=units) for _ in range(2)]
    elif kind in ("SquareLoss", "BinaryCrossEntropy"):
        bottoms = [any_blob, builder.input(shape, "target")]
        settings = {"weight": case.pick([1, 0.5, 2.0])}
    elif kind in ("SoftmaxLoss", "Accuracy"):
        integers = case.chance(0.3)
        bottoms = [any_blob, builder.input((), f"label{size}_", integers=integers)]
    elif kind in ("GaussianReconstruction", "StudentReconstruction"):
        pair = [builder.add("Dense", any_blob, units=size) for _ in range(2)]
        bottoms = [builder.input((size,), "target"), *pair]
    elif kind in ("SpatialTransform", "ImagePose"):
        side = case.whole(3, 8)
        picture = builder.input((side, side), "target")
        if kind == "SpatialTransform":
            pose = builder.add("Dense", any_blob, units=case.whole(1, 4))
            bottoms, settings = [picture, pose], {"side": side}
        else:
            bottoms, settings = [picture], {"side": side, "size": 1.5}
    elif kind == "Input":
        bottoms, settings = [], {"shape": (case.whole(1, 5),)}
    builder.add(kind, *bottoms, strange=strange, **settings)


def heads(builder: Builder) -> None:
    """A loss at the end of everything that nothing reads."""
    losses = {t for x in builder.layers if x.is_loss or x.is_metric for t in x.tops}
    inputs = {t for x in builder.layers if isinstance(x, L.Input) for t in x.tops}
    for name in builder.blobs(lambda s: s != ()):
        if name not in builder.read | losses | inputs:
            builder.add("SquareLoss", name, builder.input(builder.shapes[name], "target"))
    if not any(x.is_loss for x in builder.layers):
        some = builder.blobs(lambda s: s != ())[-1]
        made = builder.add("Dense", some, units=2)
        builder.add("SquareLoss", made, builder.input((2,), "target"))


def draw(case: Case, net: lk.Net, rows: int) -> dict[str, np.ndarray]:
    """Plausible inputs for all Input layers."""
    found = {}
    for layer in net.layers.values():
        if isinstance(layer, L.Input):
            name = layer.tops[0]
            size = (rows, *net.blobs[name].shape)
            if str(name).startswith("label"):
                classes = int(name.removeprefix("label").split("_")[0])
                found[name] = case.rng.integers(classes, size=size).astype(case.pick("fiB"))
            elif str(name).startswith("target"):
                found[name] = case.rng.uniform(size=size)
            else:
                found[name] = case.rng.normal(size=size)
    return found


def odd_array(case: Case, array: np.ndarray) -> Any:
    """Something else in the place of an array of numbers."""
    flat = np.array(array, dtype=float)
    bad = flat.copy()
    bad.flat[case.whole(0, max(bad.size - 1, 0))] = case.pick(
        [np.nan, np.inf, -np.inf, 1e300, 3.5, -1, 1e38]
    )
    choices = [
        lambda: bad,
        lambda: flat.astype(">f4"),
        lambda: flat.astype("float16"),
        lambda: flat.tolist(),
        lambda: np.asfortranarray(flat),
        lambda: flat[::-1],
        lambda: np.ma.masked_array(flat, mask=flat > np.median(flat)),
        lambda: np.ma.masked_array(flat),
        lambda: flat.astype(object),
        lambda: flat.astype(complex),
        lambda: flat.astype(str),
        lambda: flat.astype(bool),
        lambda: None,
        lambda: 3.0,
        lambda: "abc",
        lambda: [[1], [2, 3]],
        lambda: flat[:0],
        lambda: flat[..., :-1],
        lambda: np.concatenate([flat, flat, flat]),
        lambda: flat.reshape(len(flat), -1),
        lambda: flat.astype("datetime64[s]"),
        lambda: {"a": 1},
        lambda: object(),
        lambda: np.full_like(flat, 2**53 + 1, dtype=np.int64),
        lambda: iter(flat),
        lambda: flat.astype([("a", float)]),
        lambda: np.broadcast_to(flat[:1], flat.shape),
        lambda: memoryview(flat),
        lambda: [None] * len(flat),
        lambda: np.array(3.0),
        lambda: np.matrix(flat.reshape(len(flat), -1)),
        lambda: flat.astype(np.longdouble),
        lambda: (row for row in flat),
        lambda: range(len(flat)),
        lambda: b"abcd",
        lambda: odd(case),
    ]
    return case.pick(choices)()


def snapshot(net: lk.Net) -> dict[str, np.ndarray]:
    """A copy of all parameters."""
    return {name: p.data.copy() for name, p in net.params.items()}


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Tell whether two sets of parameters are one, bit for bit."""
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=True) for k in a)


def close(a: Any, b: Any, tolerance: float) -> bool:
    """Tell whether two numbers or arrays agree, relative to the largest."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return bool(np.array_equal(np.isfinite(a), np.isfinite(b)))
    scale = max(1.0, float(np.abs(b).max(initial=0)))
    return bool(np.abs(a - b).max(initial=0) <= tolerance * scale)


def step(case: Case, solver: lk.Solver, inputs: dict[str, Any]) -> None:
    """One step: all parameters finite, or an error and none changed."""
    net = solver.net
    before, iteration = snapshot(net), solver.iteration
    finite = all(np.isfinite(p).all() for p in before.values())
    try:
        loss = solver.step(**inputs)
    except LayerkitError:
        check(equal(before, snapshot(net)), "a step failed, and parameters changed")
        check(solver.iteration == iteration, "a step failed, and counts as made")
        raise
    check(np.isfinite(loss), f"a step returned a loss of {loss}")
    if finite:
        for name, p in net.params.items():
            check(np.isfinite(p.data).all(), f"after a step {name} is not finite, without a word")


def compare(case: Case, net: lk.Net, layers: list[Any], inputs: dict[str, Any]) -> None:
    """Check a net in float64 against array code, another order, and finite differences."""
    state = net.state()
    loss = net.forward(**inputs)
    blobs = {name: blob.data.copy() for name, blob in net.blobs.items()}
    net.backward()
    diffs = {name: p.diff.copy() for name, p in net.params.items()}
    shuffled = [layers[i] for i in case.rng.permutation(len(layers))]
    other = lk.Net(
        shuffled, net.run.batch_size, dtype="float64", seed=state["seed"], kernels="array"
    )
    check(equal(snapshot(net), snapshot(other)), "the order of the list changes the parameters")
    again = other.forward(**inputs)
    other.backward()
    check(close(again, loss, 1e-9), f"kernels say {loss}, array code {again}")
    for name, blob in other.blobs.items():
        check(close(blobs[name], blob.data, 1e-8), f"blob {name!r} differs from array code")
    for name, p in other.params.items():
        check(close(diffs[name], p.diff, 1e-7), f"the diff of {name!r} differs from array code")
    if not np.isfinite(loss):
        return
    direction = {name: case.rng.normal(size=p.shape) for name, p in net.params.items()}
    kept = snapshot(net)

    def along(distance: float) -> float:
        for name, p in net.params.items():
            p.data[...] = kept[name] + distance * direction[name]
        net.set_state(state)
        return net.forward(**inputs)

    ahead, behind = ([along(side * h) for h in (1e-5, 2e-5, 4e-6)] for side in (1, -1))
    slopes = [(a - b) / (2 * h) for a, b, h in zip(ahead, behind, (1e-5, 2e-5, 4e-6), strict=True)]
    bend = (ahead[0] - 2 * loss + behind[0]) / 1e-5  # at a kink, how much the slope jumps
    exact = sum(float((diffs[name] * direction[name]).sum()) for name in diffs)
    for name, p in net.params.items():
        p.data[...] = kept[name]
    net.set_state(state)
    scale = 1 + abs(exact) + abs(loss)
    if max(slopes) - min(slopes) < 1e-5 * scale and abs(bend) < 1e-2 * scale:  # no kink nearby
        check(abs(exact - slopes[0]) < 1e-4 * scale, f"slope {exact}, by differences {slopes}")


def solver_of(case: Case, net: lk.Net, strange: bool) -> lk.Solver:
    """A solver with plausible settings, or one that is odd."""
    cls = case.pick([lk.SGD, lk.Nesterov, lk.Adam])
    settings: dict[str, Any] = {"rate": case.pick([0.01, 1e-3, lk.rates.Cosine(0.01, 5)])}
    if case.chance(0.3):
        settings["clip"] = case.pick([0.1, 1.0, 5])
    if strange:
        names = [p for p in inspect.signature(cls).parameters if p != "net"]
        name = case.pick([*names, "policy"])
        if name == "policy":
            policy = case.pick(
                [
                    lk.rates.Fixed,
                    lk.rates.Step,
                    lk.rates.Exponential,
                    lk.rates.Inverse,
                    lk.rates.Cosine,
                    lk.rates.WarmUp,
                ]
            )
            arguments = [case.pick([0.01, 0.5, 3]) for _ in inspect.signature(policy).parameters]
            arguments[case.whole(0, len(arguments) - 1)] = odd(case)
            case.say(policy.__name__, *arguments)
            settings["rate"] = policy(*arguments)
        else:
            settings[name] = odd(case)
    case.say(cls.__name__, settings)
    return cls(net, **settings)


def case(case: Case) -> None:
    """One net and what is done with it."""
    strange = case.pick(
        [
            None,
            None,
            "layer",
            "layer",
            "layer",
            "net",
            "input",
            "input",
            "solver",
            "solver",
            "call",
            "names",
        ]
    )
    case.odd = strange is not None
    builder = Builder(case)
    shape = case.pick([(6,), (1, 6, 6), (2, 4, 5), (3, 4), (1,), (12,)])
    builder.input(shape, "x")
    at = case.whole(0, 3)
    for place in range(at + 1 if strange == "layer" else case.whole(1, 4)):
        grow(case, builder, strange == "layer" and place == at)
    heads(builder)
    layers = builder.layers
    if strange == "names":
        layers = renamed(case, layers)
    rows = case.whole(1, 5)
    settings: dict[str, Any] = {
        "batch_size": rows + case.whole(0, 3),
        "dtype": case.pick(["float64", "float64", "float32"]),
        "seed": case.whole(0, 2**40),
        "kernels": case.pick(["auto", "auto", "array"]),
    }
    if strange == "net":
        settings[case.pick([*settings, "phase", "gradients", "backend", "tf32", "share"])] = odd(
            case
        )
    case.say("lk.Net", settings)
    net = lk.Net(layers, **settings)
    plain(net)
    inputs = draw(case, net, min(rows, net.run.batch_size))
    if strange == "input" and inputs:
        feed_odd(case, net, inputs)
    if net.gradients == "none":
        net.forward(**inputs)
        return
    if not case.odd and net.dtype == np.float64:
        try:
            compare(case, net, layers, inputs)
        except NotFiniteError:
            return
    looking(case, net, inputs)
    solver = solver_of(case, net, strange == "solver")
    try:
        for _ in range(3):
            step(case, solver, inputs)
        case.say("steps(2)")
        solver.steps(2, **inputs)
    except NotFiniteError:
        return
    if strange == "call":
        call(case, net, solver, inputs)
    saving(case, net, solver, layers, settings, inputs)


def plain(net: lk.Net) -> None:
    """Check what a net says of itself."""
    total = 0
    for name, p in net.params.items():
        check(np.isfinite(p.data).all(), f"parameter {name!r} begins with numbers not finite")
        check(p.data.shape == p.shape, f"parameter {name!r} has another shape than it says")
        total += int(np.prod(p.shape))
    check(f"{total:,} parameters" in str(net), "the table counts other parameters than there are")
    check(repr(net) == str(net), "a net does not show its table")


def renamed(case: Case, layers: list[Any]) -> list[Any]:
    """A list with one blob or layer under an odd name, as a user may choose it."""
    name = case.pick(NAMES)
    case.say("renamed to", name)
    if case.chance(0.4):
        shape = case.pick([(3,), (2, 2)])
        return [*layers, L.Input(name, shape=shape, **case.pick([{}, {"tops": "other"}]))]
    made = case.pick([layer for layer in layers if not isinstance(layer, L.Input)])
    kind = type(made)
    return [*layers, L.Dense(name, made.bottoms[0], units=2)] if kind is not None else layers


def feed_odd(case: Case, net: lk.Net, inputs: dict[str, Any]) -> None:
    """Give an odd array for one input: what the net then holds is what NumPy makes of it."""
    name = case.pick(inputs)
    inputs[name] = given = odd_array(case, inputs[name])
    case.say("input", name, given)
    net.forward(**inputs)
    held = net.blobs[name].data
    check(not np.ma.is_masked(given), "masked values were taken for numbers")
    expected = np.asarray(given)
    check(expected.dtype.kind in "biuf", f"{expected.dtype} was taken for numbers")
    check(expected.size == held.size, "an input of another size was taken")
    with np.errstate(all="ignore"):
        same = np.array_equal(expected.astype(net.dtype).reshape(held.shape), held, equal_nan=True)
    check(same, "the net holds other numbers than it was given")
    if expected.dtype.kind in "iu" and net.dtype == np.float32:
        exact = all(int(a) == int(b) for a, b in zip(expected.flat, held.flat, strict=True))
        check(exact, "integers lost their last digits in silence")


def looking(case: Case, net: lk.Net, inputs: dict[str, Any]) -> None:
    """Inference and a second forward pass change nothing that training depends on."""
    if not case.chance(0.4):
        return
    state, before = net.state(), snapshot(net)
    name = case.pick(net.blobs)
    case.say("infer", name)
    try:
        first = net.infer(name, False, **inputs)
        second = net.infer(name, sample=False, **inputs)
    except NotFiniteError:
        return
    check(np.array_equal(first, second, equal_nan=True), f"infer({name!r}) gives two results")
    check(first.shape == (len(next(iter(inputs.values()))), *net.blobs[name].shape), "its shape")
    check(net.state() == state, "infer changed the state of the net")
    check(equal(before, snapshot(net)), "infer changed parameters")


def call(case: Case, net: lk.Net, solver: lk.Solver, inputs: dict[str, Any]) -> None:
    """Call something with an odd argument."""
    value = odd(case)
    what = case.pick(
        [
            "infer",
            "infer given",
            "steps",
            "freeze",
            "backward",
            "rate",
            "clip",
            "save",
            "load",
            "rebuild",
            "extra",
            "weight",
            "extra input",
            "missing input",
            "twice",
            "check",
        ]
    )
    case.say("call", what, value)
    before = snapshot(net)
    if what == "infer":
        net.infer(value, **inputs)
    elif what == "infer given":
        blob = case.pick(net.blobs)
        net.infer(case.pick(net.blobs), **{blob: value})
    elif what == "steps":
        if not (isinstance(value, int) and value > 100):
            solver.steps(value, **inputs)
    elif what == "freeze":
        net.freeze(value)
    elif what == "backward":
        net.forward(**inputs)
        net.backward(**{case.pick(net.blobs): value})
    elif what in ("rate", "clip"):
        setattr(solver, what, value)
        step(case, solver, inputs)
    elif what == "weight":
        loss = case.pick([x for x in net.layers.values() if x.is_loss])
        loss.weight = value
        step(case, solver, inputs)
    elif what == "save":
        if not isinstance(value, int | np.integer) or isinstance(value, bool):  # file descriptors
            lk.save(value, net, solver)
    elif what == "load":
        if not isinstance(value, int | np.integer):
            lk.load(value, net, solver)
    elif what == "extra":
        lk.save(case.folder / "extra.h5", net, extra={"n": value})
        found = lk.load(case.folder / "extra.h5", net)["n"]
        if isinstance(value, bool | int | str) or value is None:
            check(found == value, f"extra {value!r} came back as {found!r}")
    elif what == "rebuild":
        net.rebuild(**{case.pick(["dtype", "batch_size", "seed", "gradients", "phase"]): value})
    elif what == "extra input":
        net.forward(**inputs, unknown=value)
        check(False, "an input that the net does not have was taken")
    elif what == "missing input":
        some = dict(inputs)
        del some[case.pick(some)]
        net.forward(**some)
        check(False, "a net ran without one of its inputs")
    elif what == "twice":
        lk.Net([*net.descriptions, *net.descriptions], 2)
        check(False, "two layers have one name")
    elif what == "check" and net.gradients == "all":
        lk.check_gradients(net, **inputs)
    if what not in ("rate", "clip", "weight", "steps", "extra", "load"):
        check(equal(before, snapshot(net)), f"{what} changed parameters")


def saving(
    case: Case,
    net: lk.Net,
    solver: lk.Solver,
    layers: list[Any],
    settings: dict[str, Any],
    inputs: dict[str, Any],
) -> None:
    """A saved run continues bit for bit as if it had not been interrupted."""
    if not case.chance(0.5):
        return
    path = case.folder / "net.h5"
    case.say("save and load")
    lk.save(path, net, solver, {"note": "a"})
    other = lk.Net(layers, **settings)
    same_kind = type(solver)(other)
    same_kind.rate, same_kind.clip = solver.rate, solver.clip
    for name in ("beta1", "beta2", "epsilon", "momentum"):
        if hasattr(solver, name):
            setattr(same_kind, name, getattr(solver, name))
    for name, layer in net.layers.items():  # settings are no part of a snapshot
        if layer.is_loss:
            other.layers[name].weight = layer.weight
    check(lk.load(path, other, same_kind) == {"note": "a"}, "the extra came back otherwise")
    check(equal(snapshot(net), snapshot(other)), "parameters came back otherwise")
    ends = []
    for each in (solver, same_kind):
        try:
            ends.append((each.step(**inputs), snapshot(each.net)))
        except NotFiniteError:
            return
    check(ends[0][0] == ends[1][0], f"loaded, a step gives {ends[1][0]} instead of {ends[0][0]}")
    check(equal(ends[0][1], ends[1][1]), "loaded, a step changes parameters otherwise")
