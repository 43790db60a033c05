"""Every setting of each layer, solver, rate policy, initialiser and net: values good and bad."""

import dataclasses
import inspect
import math
import re

import numpy as np
import pytest

import layerkit as lk
from layerkit import initializers, rates, settings
from layerkit import layers as L
from layerkit.errors import DataError, LayerkitError, NetError
from layerkit.galaxy.model.posterior.refinement import FreeBlob
from layerkit.system.memory import in_words

NAN, INF = math.nan, math.inf
NO_NUMBERS = [NAN, INF, -INF, True, np.True_, "1", [1.0], 1j, np.array([1.0, 2.0]), 10**400, object]
NO_WHOLE_NUMBERS = [1.5, 3.0, np.float64(3), NAN, True, "3", [3], np.array([3]), 2**31, 10**50, -1]
NO_FLAGS = [0, 1, 1.0, "yes", [], np.array(True)]
NO_NAMES = ["", " \t", "a\0b", "\ud800", 5, b"a", [""], ["a", 3], []]
NO_SHAPES = [3, "33", (0,), (2, -2), (2.5,), (True,), {3}, np.array([3, 3]), (2**31,), ((3,),)]
NO_INITIALISERS = [NAN, INF, "glorot", True, [1.0], 1j, initializers.He, np.zeros(2)]
NO_RATES = [NAN, INF, -1e-3, True, "0.1", [0.1], 1j, rates.Fixed, None]
NO_NAME = [*NO_NAMES, ["a"], ("a",)]
NO_ACTIVATIONS = ["relUs", "", 3, True, L.ReLU]


def number(good, bad):
    return good, [*bad, *NO_NUMBERS]


def whole(good, bad):
    return [*good, np.uint8(good[0]), np.array(good[0])], [*bad, *NO_WHOLE_NUMBERS]


COUNT = whole([7, 1], [0])
AT_LEAST_0 = number([0, 0.5, 3, np.float32(0.5), np.array(2.0)], [-1e-9, -3])
ABOVE_0 = number([1e-6, 3, np.float64(0.5)], [0, -0.0, -1])
ANY = number([-2, 0, 0.5], [])
FLAG = [True, False, np.True_], NO_FLAGS
TOPS = ["a", "conv1/7x7_s2", ["a"]], NO_NAMES
INIT = ["he", 0, 0.5, np.float32(0.5), initializers.He()], NO_INITIALISERS
RATE = [0.1, 1, 0, np.float32(0.1), rates.Fixed(0.1), lambda iteration: 0.1], NO_RATES
SHAPE = [(3,), [3, 2], (np.uint8(250), np.int64(2)), ()], NO_SHAPES
PICTURE = [(3, 4), [np.uint8(250), 1]], [*NO_SHAPES, (3,), (3, 4, 5), ()]
AXIS = [0, 1, -1, np.int8(2), np.array(0)], NO_WHOLE_NUMBERS[:-1]
SEVERAL_AXES = [(0,), [1, np.int8(0)], 0, (-1, 0)], ["33", (2.5,), (True,), {3}, ((3,),), None]
AXES = [*AXIS[0], None], AXIS[1]
ACTIVATION = ["relu", "tanh", None, L.ELU.of(alpha=0.5)], NO_ACTIVATIONS
AUGMENT = ["dihedral", None], ["Dihedral", "", 3, True, ["dihedral"]]
BELOW_1 = number([0, 0.5], [1, -0.1, 1.5])
DENSE = {
    "weight": INIT,
    "bias": INIT,
    "l1": AT_LEAST_0,
    "l2": AT_LEAST_0,
    "neuron": ACTIVATION,
    "tops": TOPS,
}
NO_PAIRS = [
    *(v for v in NO_WHOLE_NUMBERS if v != [3]),
    [3],
    (1, 2, 3),
    (),
    (1, 2.5),
    (2, -1),
    {1, 2},
]
COUNTS = [*COUNT[0], (2, 1), [np.int8(2), 3]], [0, (0, 1), *NO_PAIRS]
PAD = [2, 0, (0, 3), [np.int8(2), 0]], NO_PAIRS
WINDOWS = {"kernel": COUNTS, "stride": COUNTS, "pad": PAD, "tops": TOPS}
CONVOLUTION = {
    **DENSE,
    **WINDOWS,
    "channels": COUNT,
    "dilation": COUNTS,
    "groups": COUNT,
    "bias": ([*INIT[0], None], NO_INITIALISERS),
}
MODE = ["max", "mean"], ["Max", "average", "", None, 3, ["max"]]
POSE = {
    "side": whole([9, 3], [2, 0]),
    "turns": number([0.5, 1], [0, 1.01]),
    "size_spread": ABOVE_0,
    "shift_spread": ABOVE_0,
    "tops": TOPS,
}
MOMENTS = [None, "all", "channel", "element", 2, np.float32(0.5), [1, 2.5], np.ones((3, 1, 1))]
NO_MOMENTS = ["pixel", "", True, [], np.zeros(0), [np.nan], ["a"], np.array(["a"]), 1j, {}]
WINDOW = (
    [None, 3, (2, 1), [np.int8(2), 3]],
    [0, (0, 1), *(bad for bad in NO_PAIRS if bad is not None)],
)
SEEN = {
    "tops": TOPS,
    "augment": AUGMENT,
    "scale": number([1, -0.5, 1e-3], [0]),
    "mean": ([*MOMENTS, 0, -1], NO_MOMENTS),
    "deviation": (MOMENTS, [*NO_MOMENTS, 0, -1, [1, 0]]),
    "crop": WINDOW,
    "mirror": FLAG,
    "prefetch": whole([0, 3], [-1, 1025]),
    "integers": TOPS,
}
DATA = {**SEEN, "shuffle": FLAG}
RECURRENT = {
    "units": COUNT,
    "last": FLAG,
    "reverse": FLAG,
    "weight": INIT,
    "recurrent": INIT,
    "bias": INIT,
    "l1": AT_LEAST_0,
    "l2": AT_LEAST_0,
    "tops": TOPS,
}
OPTIONAL_INIT = [*INIT[0], None], [bad for bad in NO_INITIALISERS if bad is not None]
NORM = {"epsilon": ABOVE_0, "gain": OPTIONAL_INIT, "bias": OPTIONAL_INIT, "tops": TOPS}
LOSS = {"weight": AT_LEAST_0, "tops": TOPS}
GAIN = {"gain": ABOVE_0}
SOLVER = {"clip": ABOVE_0, "accumulate": COUNT, "ema": number([0.5, 0.999], [0, 1, -0.1, 1.5])}
STEPS = whole([7, 0], [])

# kind -> setting -> values that are accepted and values that are not.
TABLE = {
    "Accuracy": {"top": COUNT, "axis": AXES, "ignore": AXES, "tops": TOPS},
    "BinaryCrossEntropy": LOSS,
    "GaussianKL": LOSS,
    "ContrastiveLoss": {**LOSS, "margin": ABOVE_0},
    "HingeLoss": {**LOSS, "margin": ABOVE_0, "squared": FLAG},
    "HuberLoss": {**LOSS, "delta": ABOVE_0},
    "Softmax": {"axis": AXES, "tops": TOPS},
    "SoftmaxLoss": {
        **LOSS,
        "axis": AXES,
        "ignore": AXES,
        "smoothing": BELOW_1,
        "weights": (
            [(1, 0.5), [0, np.float32(2)], np.ones(3), (), None],
            [1.0, "12", (-1,), (NAN,), ("1",), (True,), np.ones((2, 2)), {1.0}],
        ),
    },
    "SquareLoss": LOSS,
    "KnownVarianceReconstruction": LOSS,
    "PoissonReconstruction": LOSS,
    "GaussianReconstruction": {**LOSS, "floor": AT_LEAST_0},
    "StudentReconstruction": {
        **LOSS,
        "floor": AT_LEAST_0,
        "degrees": number([2.1, 1000], [2, 1001, 0, -3]),
    },
    **{
        kind: {"tops": TOPS}
        for kind in (
            "Add",
            "Divide",
            "GELU",
            "Multiply",
            "ReLU",
            "SiLU",
            "Sigmoid",
            "Subtract",
            "Tanh",
            "Softplus",
            "Exponential",
            "Reparameterize",
        )
    },
    "BatchNorm": {**NORM, "axis": AXIS, "momentum": BELOW_1, "frozen": FLAG},
    "GroupNorm": {**NORM, "groups": COUNT},
    "LayerNorm": {**NORM, "axis": AXIS},
    "Concat": {"axis": AXIS, "tops": TOPS},
    "Convolution": CONVOLUTION,
    "Deconvolution": {
        **CONVOLUTION,
        "shape": ([(4, 5), [4, np.int8(5)], (4,), None], [*NO_SHAPES, (), (4, 5, 6)]),
    },
    "Pooling": {**WINDOWS, "mode": MODE, "ceil": FLAG},
    "GlobalPooling": {"mode": MODE, "tops": TOPS},
    "Dense": {**DENSE, "units": COUNT, "bias": OPTIONAL_INIT},
    "TiedDense": {
        "bias": OPTIONAL_INIT,
        "neuron": ACTIVATION,
        "tops": TOPS,
        "to": (["a", "conv1/7x7_s2"], NO_NAME),
    },
    "Dropout": {"ratio": BELOW_1, "tops": TOPS},
    "ELU": {"alpha": ABOVE_0, "tops": TOPS},
    "LeakyReLU": {"slope": ABOVE_0, "tops": TOPS},
    "GeneratorData": {
        **SEEN,
        "count": (
            [None, 3, np.int8(2)],
            [0, *(bad for bad in NO_WHOLE_NUMBERS if bad is not None)],
        ),
        "make": ([list, lambda start: ()], [[1], None, 3, "make", iter([1])]),
    },
    "HDF5Data": {
        **DATA,
        "block": COUNT,
        "mixed": COUNT,
        "repeat": COUNT,
        "lanes": ([*COUNT[0], None], [bad for bad in COUNT[1] if bad is not None]),
        "skip": ([None, [0, 3], np.array([2])], [[0.5], [-1], [[1]], "ab", 3]),
        "datasets": (["a", ["a", "b"]], NO_NAMES),
        "path": (["a.h5", ["a.h5"], ("a", "b")], ["", "a\0b", 3, [], ["a", 3], None]),
    },
    "ImageData": {
        **DATA,
        "channels": ([1, np.int8(3)], [2, *NO_WHOLE_NUMBERS]),
        "fit": (["exact", "resize", "crop"], ["stretch", "", None, 3]),
        "folder": (["a"], ["", "a\0b", 3, ["a"], None]),
        "size": WINDOW,
        "table": ([None], [3, "", [1], [("a",)], ["ab"], {}]),
    },
    "ImagePose": {
        **POSE,
        "size": ABOVE_0,
        "threshold": AT_LEAST_0,
        "latents": whole([4, 1], [0, 5]),
    },
    "Input": {"shape": SHAPE, "integers": FLAG, "tops": TOPS},
    "FreeBlob": {"shape": SHAPE, "tops": TOPS},
    "MemoryData": {**DATA, "repeat": COUNT},
    "PReLU": {"slope": INIT, "tops": TOPS},
    "Permute": {"order": SEVERAL_AXES, "tops": TOPS},
    "Reduce": {
        "mode": (["sum", "mean", "max"], ["min", "", None, 3]),
        "axes": ([*SEVERAL_AXES[0], None], SEVERAL_AXES[1][:-1]),
        "keep": FLAG,
        "tops": TOPS,
    },
    "ConvolvePSF": {"tops": TOPS},
    "CutSources": {"shape": PICTURE, "tops": TOPS},
    "Normalise": {"axes": ([*SEVERAL_AXES[0], None], SEVERAL_AXES[1][:-1]), "tops": TOPS},
    "PlaceSources": {"shape": PICTURE, "tops": TOPS},
    "Affine": {"axis": AXIS, "gain": OPTIONAL_INIT, "bias": OPTIONAL_INIT, "tops": TOPS},
    "MatMul": {"transpose_a": FLAG, "transpose_b": FLAG, "tops": TOPS},
    "Embed": {
        "count": COUNT,
        "units": COUNT,
        "weight": OPTIONAL_INIT,
        "l1": AT_LEAST_0,
        "l2": AT_LEAST_0,
        "tops": TOPS,
    },
    "LSTM": {**RECURRENT, "forget": ANY},
    "GRU": RECURRENT,
    "OneHot": {"count": COUNT, "axis": AXIS, "tops": TOPS},
    "Normal layer": {"shape": SHAPE, "tops": TOPS},
    "Reshape": {"shape": ([(3, -1), [np.int64(3)]], NO_SHAPES), "tops": TOPS},
    "Slice": {"axis": AXIS, "sizes": ([[1, 2], (np.uint8(3),), None], NO_SHAPES), "tops": TOPS},
    "SpatialTransform": {**POSE, "inverse": FLAG},
    "Taper": {"side": POSE["side"], "flat": BELOW_1, "tops": TOPS},
    "Constant": {"value": ANY},
    "Normal": {"sd": AT_LEAST_0, "mean": ANY},
    "Uniform": {"low": ANY, "high": ANY},
    "Bilinear": {},
    "Xavier": GAIN,
    "He": GAIN,
    "Orthogonal": GAIN,
    "Fixed": {"rate": AT_LEAST_0},
    "Step": {"rate": AT_LEAST_0, "gamma": AT_LEAST_0, "every": COUNT},
    "Exponential policy": {"rate": AT_LEAST_0, "gamma": AT_LEAST_0},
    "Inverse": {"rate": AT_LEAST_0, "gamma": AT_LEAST_0, "power": AT_LEAST_0},
    "Cosine": {"rate": AT_LEAST_0, "iterations": STEPS, "final": AT_LEAST_0},
    "WarmUp": {"policy": RATE, "iterations": STEPS},
    "MultiStep": {
        "rate": AT_LEAST_0,
        "gamma": AT_LEAST_0,
        "at": (
            [[3], (0, 5, np.int64(9))],
            [[], 3, "3", [5, 3], [3, 3], [-1], [1.5], [True], None, {3: 1}],
        ),
    },
    "Polynomial": {
        "rate": AT_LEAST_0,
        "iterations": STEPS,
        "power": AT_LEAST_0,
        "final": AT_LEAST_0,
    },
    "Plateau": {
        "rate": AT_LEAST_0,
        "factor": number([0.5, 1], [0, 1.1, -0.5]),
        "patience": COUNT,
        "least": AT_LEAST_0,
        "tolerance": BELOW_1,
        "cooldown": STEPS,
    },
    "Adam": {"rate": RATE, "beta1": BELOW_1, "beta2": BELOW_1, "epsilon": ABOVE_0, **SOLVER},
    "AdamW": {
        "rate": RATE,
        "beta1": BELOW_1,
        "beta2": BELOW_1,
        "epsilon": ABOVE_0,
        "weight_decay": AT_LEAST_0,
        **SOLVER,
    },
    "RMSProp": {"rate": RATE, "decay": BELOW_1, "epsilon": ABOVE_0, **SOLVER},
    "SGD": {"rate": RATE, "momentum": BELOW_1, **SOLVER},
    "Nesterov": {"rate": RATE, "momentum": BELOW_1, **SOLVER},
    "Net": {
        "batch_size": COUNT,
        "tf32": FLAG,
        "backend": (["numpy", "auto"], ["", 3, None, True]),
        "dtype": (
            ["float32", ">f4", np.float64, float, np.dtype("f8")],
            ["float16", "f99", 3, True, int, None, ["float32"], ""],
        ),
        "seed": (
            [0, -5, 2**63 - 1, -(2**63), np.uint8(7)],
            [1.0, "1", None, True, 2**63, -(2**63) - 1, 10**50, NAN],
        ),
        "phase": (["train", "test"], ["Train", "", None, 3, ["train"]]),
        "gradients": (["all", "none", None], ["some", "", 3, True]),
        "kernels": (["auto", "array"], ["none", None, True]),
    },
}
TUNING = {"shares", "rate", "decay", "max_norm"}  # of layers: see test_sharing and test_updates
NOT_SETTINGS = {"self", "name", "net", "layers", "data", "share", "share_only"}
NEEDED = {
    "Convolution": {"channels": 3, "kernel": 3},
    "Deconvolution": {"channels": 3, "kernel": 3},
    "CutSources": {"shape": (3, 3)},
    "Dense": {"units": 3},
    "GroupNorm": {"groups": 1},
    "TiedDense": {"to": "a"},
    "GeneratorData": {"make": list},
    "HDF5Data": {"path": "a.h5"},
    "ImageData": {"folder": "a"},
    "ImagePose": {"side": 9, "size": 2.0},
    "Input": {"shape": (3,)},
    "FreeBlob": {"shape": (3,)},
    "MemoryData": {"data": np.zeros((9, 3, 3))},
    "Permute": {"order": (1, 0)},
    "Embed": {"count": 3, "units": 2},
    "OneHot": {"count": 3},
    "LSTM": {"units": 2},
    "GRU": {"units": 2},
    "Normal layer": {"shape": (3,)},
    "PlaceSources": {"shape": (9, 9)},
    "Pooling": {"kernel": 3},
    "Reshape": {"shape": (3,)},
    "Slice": {"tops": ["a"]},
    "SpatialTransform": {"side": 9},
    "Taper": {"side": 9},
    "Fixed": {"rate": 0.1},
    "Step": {"rate": 0.1, "gamma": 0.5, "every": 3},
    "Exponential policy": {"rate": 0.1, "gamma": 0.5},
    "Inverse": {"rate": 0.1, "gamma": 0.5, "power": 2},
    "Cosine": {"rate": 0.1, "iterations": 9},
    "WarmUp": {"policy": 0.1, "iterations": 9},
    "MultiStep": {"rate": 0.1, "gamma": 0.5, "at": [3]},
    "Polynomial": {"rate": 0.1, "iterations": 9},
    "Plateau": {"rate": 0.1},
}


def regression(**settings):
    return [
        L.Input("x", shape=(5,)),
        L.Input("t", shape=(3,)),
        L.Dense("y", "x", units=3, **settings),
        L.SquareLoss("loss", "y", "t"),
    ]


def public(module, base=object):
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and not name.startswith("_")
        and issubclass(value, base)
        and value is not base
        and value.__module__ == module.__name__
    }


CLASSES = {
    **{f"{name} layer" if name == "Normal" else name: getattr(L, name) for name in L.__all__},
    "FreeBlob": FreeBlob,
    "Net": lk.Net,
    **public(initializers, initializers.Initializer),
    **{
        f"{name} policy" if name == "Exponential" else name: cls
        for name, cls in public(rates).items()
        if dataclasses.is_dataclass(cls)
    },
    **{name: getattr(lk, name) for name in ("Adam", "AdamW", "RMSProp", "SGD", "Nesterov")},
}


def make(kind, **given):
    cls = CLASSES[kind]
    arguments = []
    if issubclass(cls, lk.Layer):
        arguments = ["y"]
        for p in list(inspect.signature(cls).parameters.values())[1:]:
            bottom = p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty
            arguments += [p.name] if bottom or p.kind is p.VAR_POSITIONAL else []
    elif issubclass(cls, lk.Solver):
        arguments = [lk.Net(regression(), 2, dtype="float64", kernels="array")]
    elif cls is lk.Net:
        arguments = [regression()]
    return cls(*arguments, **{**NEEDED.get(kind, {}), **given})


ROWS = [(kind, setting) for kind, row in TABLE.items() for setting in row]


def test_every_class_and_every_setting_has_a_row():
    assert set(TABLE) == set(CLASSES)
    for kind, cls in CLASSES.items():
        parameters = inspect.signature(cls.__init__).parameters.values()
        found = {
            p.name
            for p in parameters
            if p.name not in NOT_SETTINGS and p.kind is not p.VAR_POSITIONAL
        }
        if issubclass(cls, lk.Layer):  # bottoms come by position
            found = {
                p.name
                for p in parameters
                if p.kind is p.KEYWORD_ONLY and p.name not in NOT_SETTINGS | TUNING
            }
        assert found == set(TABLE[kind]), kind


WITH_PARAMETERS = {
    *("Affine", "BatchNorm", "Convolution", "Deconvolution", "Dense", "Embed", "GRU", "GroupNorm"),
    *("LSTM", "LayerNorm", "PReLU", "TiedDense"),
}


@pytest.mark.parametrize("kind", L.__all__)
def test_layers_with_parameters_show_the_settings_of_parameters(kind):
    """In `help`, and to type checkers, which read the annotation."""
    cls = getattr(L, kind)
    shown = {p.name: p.default for p in inspect.signature(cls).parameters.values()}
    hint = inspect.unwrap(cls.__init__).__annotations__.get("common")
    if kind in WITH_PARAMETERS:
        assert {name: shown[name] for name in TUNING} == {
            "shares": None,
            "rate": 1.0,
            "decay": 1.0,
            "max_norm": None,
        }
        assert hint == "Unpack[Tuning]"
    else:
        # PoissonReconstruction has a bottom `rate`, without a default.
        assert not TUNING & {n for n, d in shown.items() if d is not inspect.Parameter.empty}
        assert hint is None
        arguments = ["y"] + [
            "x"
            for p in list(inspect.signature(cls).parameters.values())[1:]
            if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty
        ]
        for setting in TUNING - set(shown):
            with pytest.raises(
                NetError, match=f"unexpected keyword argument '{setting}'; it takes"
            ):
                cls(*arguments, **NEEDED.get(kind, {}), **{setting: 0.5})


@pytest.mark.parametrize("kind", TABLE)
def test_every_setting_says_what_it_accepts(kind):
    init = inspect.unwrap(CLASSES[kind].__init__)
    rules = settings.rules_of(init, init.__globals__)
    assert set(TABLE[kind]) <= set(rules), "annotate the setting with a rule of layerkit.settings"


@pytest.mark.parametrize(("kind", "setting"), ROWS)
def test_values_that_are_accepted(kind, setting):
    for value in TABLE[kind][setting][0]:
        make(kind, **{setting: value})


@pytest.mark.parametrize(("kind", "setting"), ROWS)
def test_values_that_are_not(kind, setting):
    """One line that names the owner, the setting, what is expected and what came."""
    name = kind.removesuffix(" policy").removesuffix(" layer")
    owner = f"layer 'y' ({name}): " if issubclass(CLASSES[kind], lk.Layer) else f"{name}: "
    for value in TABLE[kind][setting][1]:
        with pytest.raises(LayerkitError) as caught:
            make(kind, **{setting: value})
        text = str(caught.value)
        assert text.startswith(f"{owner}{setting} must be "), (value, text)
        assert "\n" not in text
        assert re.search(r", got .+$", text), text
        assert len(text) < 300, text


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (k, s)
        for k, s in ROWS
        if issubclass(CLASSES[k], settings.Checked) and s in CLASSES[k].rules()
    ],
)
def test_values_that_are_assigned_later(kind, setting):
    owner = make(kind)
    before = getattr(owner, setting, None)
    for value in TABLE[kind][setting][1]:
        with pytest.raises(NetError, match=f"{setting} must be .*, got "):
            setattr(owner, setting, value)
        assert getattr(owner, setting, None) is before


@pytest.mark.parametrize(
    "kind", [k for k in TABLE if TABLE[k] and dataclasses.is_dataclass(CLASSES[k])]
)
def test_policies_and_initialisers_do_not_change(kind):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(make(kind), next(iter(TABLE[kind])), 0.5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: rates.Step(0.1, 0.5), "Step: missing a required argument: 'every'"),
        (lambda: rates.Cosine(0.1, 9, end=0), "Cosine: got an unexpected keyword argument 'end'"),
        (lambda: initializers.Normal(deviation=1), "Normal: got an unexpected keyword argument"),
        (lambda: make("Adam", betas=(0.9, 0.99)), "Adam: got an unexpected .*beta1=0.9"),
        (lambda: lk.Net(regression(), batch=3), "Net: got an unexpected .*batch_size=64"),
        (lambda: lk.Adam(regression()), "Adam: expected a net to train, got "),
        (lambda: lk.Net(regression(), share="x"), "Net: share must be another net, or None"),
    ],
)
def test_arguments_that_are_not_there(call, says):
    with pytest.raises(NetError, match=f"^{says}") as caught:
        call()
    assert "\n" not in str(caught.value)


# Attributes that are not there.


@pytest.mark.parametrize("kind", TABLE)
def test_attributes_that_are_not_there(kind):
    """Policies and initialisers never change: none of their attributes can be assigned."""
    made = make(kind)
    for setting in TABLE[kind]:
        wrong = f"{setting}z"
        with pytest.raises(AttributeError) as caught:
            setattr(made, wrong, 3)
        assert not hasattr(made, wrong)
        if not dataclasses.is_dataclass(made):
            assert isinstance(caught.value, NetError)
            assert f"has no attribute {wrong!r} that could be set; " in str(caught.value)
            if setting in vars(made):
                assert f"did you mean {setting!r}?" in str(caught.value)


@pytest.mark.parametrize(
    ("assign", "says"),
    [
        (lambda net: setattr(lk.Adam(net), "rat", 0.1), "Adam: has no .*'rat'.*mean 'rate'"),
        (lambda net: setattr(lk.SGD(net), "lr", 0.1), "SGD: has no .*'lr'.*there are .*'rate'"),
        (lambda net: setattr(net, "phaze", "test"), "Net: has no .*'phaze'.*mean 'phase'"),
        (
            lambda net: setattr(net, "phase", "test"),
            r"Net: phase cannot be changed.*net\.rebuild\(",
        ),
        (lambda net: setattr(net, "batch_size", 9), r"Net: batch_size cannot.*net\.rebuild\("),
        (lambda net: setattr(net, "gradients", "all"), r"Net: gradients cannot.*net\.rebuild\("),
        (lambda net: setattr(net, "params", {}), "Net: params cannot be changed"),
        (
            lambda net: setattr(net.run, "trainig", False),
            "Run: has no .*'trainig'.*mean 'training'",
        ),
        (lambda net: setattr(net.layers["y"], "unitz", 3), "layer 'y' .*'unitz'.*mean 'units'"),
        (
            lambda net: setattr(net.layers["y"], "weight", 3),
            "layer 'y' .*has no attribute 'weight'",
        ),
        (lambda net: setattr(net.layers["loss"], "wieght", 3), "layer 'loss' .*mean 'weight'"),
        (lambda net: setattr(lk.Adam(net), "net", net), "Adam: net cannot be changed"),
        (lambda net: setattr(net, "losses", {}), "Net: losses cannot be changed"),
        (lambda net: setattr(net.run, "batch_size", 9), r"Run: batch_size cannot.*net\.rebuild\("),
        (lambda net: setattr(net.run, "seed", "a"), "Run: seed must be .* got 'a'"),
        (lambda net: setattr(net.run, "passes", -1), "Run: passes must be .* got -1"),
        (lambda net: setattr(net.run, "training", "no"), "Run: training must be .* got 'no'"),
        (lambda net: setattr(net.run, "sample", 0), "Run: sample must be .* got 0"),
        (lambda net: setattr(net.layers["y"], "units", 9), "'y' .*units cannot .*net.descriptions"),
        (lambda net: setattr(net.layers["y"], "neuron", None), "'y' .*neuron cannot be changed"),
        (lambda net: setattr(net.layers["y"], "l2", 0.1), "'y' .*l2 cannot be changed"),
        (lambda net: setattr(net.layers["y"], "name", "z"), "'y' .*name cannot be changed"),
        (lambda net: setattr(net.layers["y"], "bottoms", ["t"]), "'y' .*bottoms cannot be changed"),
        (lambda net: setattr(net.layers["x"], "shape", (9,)), "'x' .*shape cannot be changed"),
        (lambda net: setattr(net.descriptions[2], "unitz", 3), "layer 'y' .*mean 'units'"),
    ],
)
def test_a_misspelt_attribute_names_the_closest(assign, says):
    net = lk.Net(regression())
    with pytest.raises(NetError, match=says):
        assign(net)
    net.forward(x=np.ones((2, 5)), t=np.ones((2, 3)))


def test_settings_that_are_there_can_be_assigned():
    net = lk.Net(regression())
    solver = lk.Adam(net)
    solver.rate, solver.fuse, solver.clip = 0.1, False, 1.0
    net.layers["loss"].weight = 0.5
    net.run.training, net.run.passes = False, 3
    net.params["y/weight"].trainable = False
    net.descriptions[2].units = net.descriptions[1].shape[0] + 4  # of nets to come
    with pytest.raises(NetError, match="loss"):
        lk.Net(net.descriptions)
    solver.step(x=np.ones((2, 5)), t=np.ones((2, 3)))


class Late(L.Dense):
    """A layer of a user's own that has attributes of any name, made at any time."""

    def setup(self, shapes):
        self.weights = "made in setup"
        return super().setup(shapes)

    def forward(self, bottoms, tops):
        super().forward(bottoms, tops)
        self.unit = float(tops[0].data.mean())  # a cache

    def backward(self, bottoms, tops):
        self.unitz = self.unit
        super().backward(bottoms, tops)


def test_classes_of_ones_own_keep_what_they_like():
    class OwnNet(lk.Net):
        """A net with notes."""

    class OwnAdam(lk.Adam):
        """A solver with notes."""

        def update(self, w, g, rate, **history):
            self.rat = rate
            super().update(w, g, rate, **history)

    layers = regression()
    layers[2] = Late("y", "x", units=3)
    layers[2].note = 1
    net = OwnNet(layers)
    solver = OwnAdam(net)
    net.phaze = solver.note = net.layers["y"].remark = 3
    solver.step(x=np.ones((2, 5)), t=np.ones((2, 3)))
    assert net.layers["y"].unitz == net.layers["y"].unit
    assert solver.rat == 1e-3
    net.rebuild()


class Scaled(lk.Layer):
    """y = weight * x, by a layer whose parameter is called like the setting of losses."""

    def __init__(self, name, bottom):
        super().__init__(name, [bottom])

    def setup(self, shapes):
        self.weight = self.parameter("weight", shapes[0], 2.0)
        return shapes

    def forward(self, bottoms, tops):
        tops[0].data[...] = self.weight.data * bottoms[0].data

    def backward(self, bottoms, tops):
        self.weight.diff[...] = (tops[0].diff * bottoms[0].data).sum(axis=0)
        if bottoms[0].diff is not None:
            bottoms[0].diff[...] = tops[0].diff * self.weight.data


def test_a_parameter_called_weight_stays_with_its_net():
    """The weight of a loss goes along with a rebuilt net, and no other attribute of that name."""
    layers = [
        L.Input("x", shape=(3,)),
        Scaled("y", "x"),
        L.SquareLoss("loss", "y", "x", weight=3.0),
    ]
    net = lk.Net(layers)
    again = net.rebuild(dtype="float64")
    assert again.layers["y"].weight is again.params["y/weight"]
    assert again.layers["loss"].weight == 3.0
    lk.check_gradients(net, x=np.ones((2, 3)))


# Plain form.


def test_small_numpy_integers_do_not_overflow():
    """250 * 250 * 3 is 60 in uint8."""
    layers = [
        L.Input("x", shape=(np.uint8(250), np.uint8(3))),
        L.Dense("y", "x", units=np.uint8(250)),
        L.Reshape("r", "y", shape=[np.int8(-1), np.int8(25)]),
    ]
    net = lk.Net(layers, batch_size=np.uint8(200))
    assert net.params["y/weight"].shape == (750, 250)
    assert type(net.layers["y"].units) is int
    assert net.blobs["r"].data.shape == (200, 10, 25)
    y = net.infer("y", x=np.ones((200, 750)))
    np.testing.assert_allclose(y[0], net.params["y/weight"].data.sum(axis=0), rtol=1e-3, atol=1e-4)


def test_bytes_in_another_order_are_a_matter_of_files():
    x = np.arange(10, dtype=">f4").reshape(2, 5)
    nets = [lk.Net(regression(), 2, dtype=dtype) for dtype in (">f4", "float32")]
    losses = [net.forward(x=x, t=np.zeros((2, 3))) for net in nets]
    assert losses[0] == losses[1]
    assert nets[0].dtype.isnative


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**63 - 1])
def test_seeds_that_are_negative_or_large_draw_other_numbers(seed):
    layers = [*regression(), L.Dropout("d", "y")]
    x = np.ones((4, 5))
    drawn = [lk.Net(layers, 4, seed=s, kernels=k) for s in (seed, 1) for k in ("auto", "array")]
    for net in drawn:
        net.forward(x=x, t=np.zeros((4, 3)))
    d = [net.blobs["d"].data for net in drawn]
    np.testing.assert_allclose(d[0], d[1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(d[0], d[2])


# More than a computer can hold.


@pytest.mark.parametrize(
    ("layers", "batch", "culprit"),
    [
        ([L.Input("x", shape=(5,)), L.Dense("h", "x", units=2**31 - 1)], 64, "layer 'h' (Dense)"),
        ([L.Input("x", shape=(10**6,)), L.Dense("h", "x", units=10**8)], 1, "layer 'h' (Dense)"),
        ([L.Input("x", shape=(2**31 - 1, 2**31 - 1))], 64, "layer 'x' (Input)"),
        ([L.Input("x", shape=(2**31 - 1,) * 5)], 2**31 - 1, "layer 'x' (Input)"),
        (
            [
                L.Input("x", shape=(1, 10**4, 10**4)),
                L.Convolution("c", "x", channels=10**4, kernel=100, pad=99),
            ],
            64,
            "layer 'c' (Convolution)",
        ),
    ],
)
def test_nets_that_no_computer_can_hold(layers, batch, culprit):
    with pytest.raises(NetError, match=re.escape(culprit)) as caught:
        lk.Net(layers, batch)
    assert "\n" not in str(caught.value)


def test_memory_in_words():
    assert in_words(1000) == "1,000 bytes"
    assert in_words(1536) == "1.5 KiB"
    assert in_words(40 * 2**30) == "40 GiB"
    assert in_words(2**71) == "2,097,152 PiB"


# Names.


GOOD_NAMES = [
    "conv1/7x7_s2",
    "/a",
    ".",
    "..",
    "a/",
    "a//b",
    "./a",
    " a b ",
    "é",
    "e\u0301",
    "日本",
    "a\nb",
    "a'b",
    "*",
    "self",
    "weight",
    "a" * 300,
]


@pytest.mark.parametrize("name", GOOD_NAMES, ids=ascii)
def test_a_name_that_is_accepted_is_saved_and_loaded(name, tmp_path):
    layers = [L.Input("x", shape=(3,)), L.Dense(name, "x", units=2), L.Dense("b", name, units=2)]
    net, other = (lk.Net(layers, 2, seed=seed) for seed in (1, 2))
    lk.save(tmp_path / "a.h5", net)
    lk.load(tmp_path / "a.h5", other)
    for key, p in net.params.items():
        np.testing.assert_array_equal(other.params[key].data, p.data)


def test_names_that_are_equal_but_for_how_they_are_written(tmp_path):
    """One letter or two characters; a layer that is called like another's parameter."""
    layers = [
        L.Input("x", shape=(3,)),
        L.Dense("é", "x", units=2),
        L.Dense("e\u0301", "x", units=2),
        L.Dense("g1", "x", units=2),
        L.Dense("g1/weight", "x", units=2),
    ]
    net, other = (lk.Net(layers, 2, seed=seed) for seed in (1, 2))
    assert not np.array_equal(*(net.params[f"{n}/weight"].data for n in ("é", "e\u0301")))
    lk.save(tmp_path / "a.h5", net)
    lk.load(tmp_path / "a.h5", other)
    for key, p in net.params.items():
        np.testing.assert_array_equal(other.params[key].data, p.data)


class TwoNames(lk.Layer):
    """A layer that calls its parameter as it likes."""

    def __init__(self, name, bottom, *, parameter):
        super().__init__(name, [bottom])
        self.called = parameter

    def setup(self, shapes):
        self.parameter(self.called, (2,), 0.0)
        return shapes


def test_two_parameters_of_one_name():
    layers = [
        L.Input("x", shape=(3,)),
        TwoNames("a", "x", parameter="b/c"),
        TwoNames("a/b", "x", parameter="c"),
    ]
    with pytest.raises(NetError, match=r"layer 'a/b' .*'a/b/c' .* layer 'a' too"):
        lk.Net(layers, 2)


@pytest.mark.parametrize("name", [n for n in NO_NAMES if not isinstance(n, list)], ids=ascii)
def test_names_that_cannot_be(name):
    for call in (
        lambda: L.Dense(name, "x", units=2),
        lambda: L.Dense("y", name, units=2),
        lambda: L.Add("y", "x", name),
        lambda: L.GaussianKL("y", "a", "b", name, "c"),
    ):
        with pytest.raises(NetError, match="must be a name") as caught:
            call()
        assert "\n" not in str(caught.value)


# Initialisers of one's own.


@dataclasses.dataclass
class Drawn(initializers.Initializer):
    values: object

    def draw(self, shape, normal):
        return self.values


@pytest.mark.parametrize(
    ("init", "says"),
    [
        (Drawn(np.ones(3)), r"'y/weight': .* draws must have shape \(5, 3\), got \(3,\)"),
        (Drawn(np.full((5, 3), NAN)), "'y/weight': .* initialiser draws must be finite numbers"),
        (1e300, "'y/weight': .* initialiser draws: 1e\\+300 is too large for float32"),
        (initializers.Normal(sd=1e39), "too large for float32"),
    ],
)
def test_initialisers_that_draw_what_cannot_be(init, says):
    with pytest.raises(NetError, match=says), np.errstate(over="ignore"):
        lk.Net(regression(weight=init), 2)


# Parameters and loss weights.


@pytest.mark.parametrize("term", ["l1", "l2"])
def test_regularisation_that_is_assigned_later(term):
    net = lk.Net(regression(), 2, dtype="float64")
    p = net.params["y/weight"]
    for value in AT_LEAST_0[1]:
        with pytest.raises(NetError, match=f"parameter 'y/weight': {term} must be"):
            setattr(p, term, value)
    before = net.forward(x=np.ones((2, 5)), t=np.zeros((2, 3)))
    setattr(p, term, np.float32(0.5))
    after = net.forward(x=np.ones((2, 5)), t=np.zeros((2, 3)))
    expected = np.abs(p.data).sum() if term == "l1" else (p.data**2).sum() / 2
    assert after - before == pytest.approx(0.5 * expected, rel=1e-12)


class OwnLoss(lk.Layer):
    """A loss of one's own, which declares no weight."""

    is_loss = True

    def __init__(self, name, bottom):
        super().__init__(name, [bottom])

    def setup(self, shapes):
        return [()]


def test_the_weight_of_a_loss_of_ones_own():
    loss = OwnLoss("loss", "x")
    loss.weight = np.float32(0.5)
    assert type(loss.weight) is float
    with pytest.raises(NetError, match=r"layer 'loss' \(OwnLoss\): weight must be .* got nan"):
        loss.weight = NAN


class OwnWeight(lk.Layer):
    """A layer of one's own that keeps something else by that name."""

    def __init__(self, name, bottom, *, share: "NoSuchType" = 0.5):  # noqa: F821
        super().__init__(name, [bottom])
        self.share = share

    def setup(self, shapes):
        self.weight = self.parameter("weight", (2,), 1.0)
        return shapes


def test_a_layer_of_ones_own_need_not_say_anything():
    with pytest.warns(RuntimeWarning, match="annotation of share, NoSuchType, cannot be evaluated"):
        layer = OwnWeight("y", "x", share="half")
    net = lk.Net([L.Input("x", shape=(3,)), layer], 2)
    assert net.layers["y"].weight is net.params["y/weight"]
    assert net.layers["y"].share == "half"


class OwnRule(lk.Layer):
    """A layer of one's own with a rule."""

    def __init__(self, name, bottom, *, ratio: settings.Positive = 0.5):
        super().__init__(name, [bottom])
        self.ratio = ratio


def test_a_rule_of_a_layer_of_ones_own():
    assert OwnRule("y", "x", ratio=np.float32(0.25)).ratio == 0.25
    with pytest.raises(NetError, match=r"layer 'y' \(OwnRule\): ratio must be .* above 0, got 0"):
        OwnRule("y", "x", ratio=0)


# Labels and targets.


def classifier(kind):
    top = L.SoftmaxLoss if kind == "loss" else L.Accuracy
    return [
        L.Input("x", shape=(4,)),
        L.Input("label", shape=()),
        L.Dense("logits", "x", units=4),
        top("y", "logits", "label"),
    ]


@pytest.mark.parametrize("kind", ["loss", "accuracy"])
@pytest.mark.parametrize("kernels", ["auto", "array"])
@pytest.mark.parametrize("bad", [4, -1, 1.5, NAN, INF, -INF, 1e30, 3.9999])
def test_a_label_that_is_no_class(kind, kernels, bad):
    net = lk.Net(classifier(kind), 5, kernels=kernels, phase="test")
    label = np.array([0.0, 3.0, bad, bad, 1.0])
    with pytest.raises(DataError) as caught:
        net.forward(x=np.ones((5, 4)), label=label)
    name = "SoftmaxLoss" if kind == "loss" else "Accuracy"
    value = f"{np.float32(bad):g}"
    assert str(caught.value) == (
        f"layer 'y' ({name}): row 2 of 'label' holds {value}, which is no class; labels are whole "
        "numbers from 0 to 3, as there are 4 classes"
    )
    net.forward(x=np.ones((5, 4)), label=np.array([0.0, 3.0, -0.0, 2.0, 1.0]))


def test_a_step_with_a_wrong_label_changes_nothing():
    net = lk.Net(classifier("loss"), 5)
    solver = lk.Adam(net)
    before = net.arena.data.copy()
    with pytest.raises(DataError, match="row 1 of 'label' holds 7"):
        solver.step(x=np.ones((2, 4)), label=np.array([0, 7]))
    assert solver.iteration == 0
    np.testing.assert_array_equal(net.arena.data, before)


@pytest.mark.parametrize("bad", [-0.01, 1.01, NAN, INF, 255])
@pytest.mark.parametrize("kernels", ["auto", "array"])
def test_targets_that_are_no_probabilities(bad, kernels):
    layers = [
        L.Input("x", shape=(3,)),
        L.Input("t", shape=(3,)),
        L.Dense("y", "x", units=3),
        L.BinaryCrossEntropy("loss", "y", "t"),
    ]
    net = lk.Net(layers, 2, kernels=kernels)
    t = np.array([[0, 1, 0.5], [1, bad, 0]])
    with pytest.raises(DataError, match=r"'loss' .*: row 1 of 't' holds .* at place 1; targets"):
        net.forward(x=np.ones((2, 3)), t=t)
    net.forward(x=np.ones((2, 3)), t=np.clip(np.nan_to_num(t), 0, 1))


def test_an_annotation_that_cannot_be_evaluated_is_told_of():
    """A rule that is not applied lets a wrong setting in; the warning comes once."""

    class Unknown(lk.Layer):
        units: "settings.NoSuchCount"

        def __init__(
            self, name, bottom, *, count: "settings.NoCount" = 3, size: "settings.Count" = 2
        ):
            super().__init__(name, [bottom])
            self.count, self.size = count, size

    with pytest.warns(RuntimeWarning) as told:
        Unknown("a", "x")
    init, own = sorted((str(warning.message) for warning in told), key=lambda x: "units" in x)
    assert "Unknown.__init__: the annotation of count, settings.NoCount, cannot" in init
    assert "Unknown: the annotation of units, settings.NoSuchCount, cannot" in own
    with pytest.raises(NetError, match="size must be a whole number"):
        Unknown("a", "x", size=-1)
