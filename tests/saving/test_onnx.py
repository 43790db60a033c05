"""ONNX models of every layer that has one, run by onnxruntime."""

import re
import sys

import numpy as np
import pytest
from cases import CASES

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import NetError
from layerkit.layers.sources.data import Data
from layerkit.saving.onnx.layers import ACTIVATIONS, CONVERTERS


def run(path, **given):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert {x.name for x in session.get_inputs()} == given.keys()
    return session.run(None, {k: np.asarray(v, "float32") for k, v in given.items()})


@pytest.fixture
def path(tmp_path):
    pytest.importorskip("onnx")
    return tmp_path / "net.onnx"


def named(case):
    return type(case.layer()).__name__


@pytest.mark.parametrize(
    "case", [c for c in CASES if named(c) in CONVERTERS], ids=lambda case: case.id
)
def test_a_model_of_each_layer_gives_what_the_net_does(case, path, rng):
    arrays = case.draw(rng, 3)
    layer = case.layer()
    inputs = [L.Input(name, shape=array.shape[1:]) for name, array in arrays.items()]
    net = lk.Net([*inputs, *case.beside(), layer], 3)
    for own in [*net.params.values(), *getattr(net, "statistics", {}).values()]:
        own.data[...] = rng.uniform(0.2, 1, own.shape)
    used = [name for name in arrays if name in layer.bottoms]
    if named(case) == "Reparameterize":
        used = layer.bottoms[:1]
    lk.export_onnx(net, path, layer.tops)
    rows = [np.concatenate([arrays[name], arrays[name][:2]]) for name in used]  # any number
    given = dict(zip(used, rows, strict=True))
    every = {k: np.concatenate([a, a[:2]]) for k, a in arrays.items() if k in layer.bottoms}
    expected = net.infer(layer.tops, sample=False, **every)
    found = run(path, **given)
    assert len(found) == len(expected)
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)


def test_the_page_says_of_every_layer_whether_it_is_exported(request, tmp_path):
    folder = next(p for p in request.path.parents if (p / "pyproject.toml").exists())
    section = (folder / "docs" / "training.md").read_text(encoding="utf-8").split("## ONNX")[1]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    said = {name: row[2] for row in rows for name in re.findall("`(\\w+)`", row[1])}
    assert set(said) == set(L.__all__)
    for name, word in said.items():
        cls = getattr(L, name)
        if issubclass(cls, L.Input | Data):
            assert word.strip() == "inputs of the model"
        else:
            assert (name in CONVERTERS) == word.strip().startswith("exported"), name


REFUSED = {
    named(c): c
    for c in reversed(CASES)
    if named(c) not in CONVERTERS and not isinstance(c.layer(), L.Input | Data)
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_layer_that_is_not_exported_is_named(case, path, rng):
    net = case.net(rng, case.draw(rng, 3))
    with pytest.raises(NetError, match=rf"layer 'y' \({named(case)}\): this kind of layer"):
        lk.export_onnx(net, path, "y")


def test_every_converter_is_of_a_layer_that_is_tested():
    assert {name for name in CONVERTERS if hasattr(L, name)} == {
        named(case) for case in CASES if named(case) in CONVERTERS
    }


@pytest.mark.parametrize("neuron", sorted(L.ReLU.registry))
def test_activations_inside_of_layers(neuron, path, rng):
    if L.ReLU.registry[neuron].__module__.partition(".")[0] != "layerkit":
        pytest.skip("of a test")
    x = rng.standard_normal((4, 2, 7, 6))
    layers = [
        L.Input("x", shape=(2, 7, 6)),
        L.Convolution("c", "x", channels=3, kernel=3, stride=2, pad=1, neuron=neuron),
        L.Dense("y", "c", units=5, neuron=neuron),
    ]
    net = lk.Net(layers, 4)
    lk.export_onnx(net, path, ["y", "c"])
    for found, expected in zip(run(path, x=x), net.infer(["y", "c"], x=x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert type(net.layers["y"].neuron).__name__ in ACTIVATIONS


NETS = ["galaxy_gdae", "galaxy_conv", "galaxy_ladder", "galaxy_wide"]


@pytest.mark.parametrize("name", NETS)
def test_encoders_and_decoders_of_galaxies(name, path, rng, request):
    folder = next(p for p in request.path.parents if (p / "pyproject.toml").exists())
    file = next(folder.rglob(f"nets/{name}.py"))
    net = lk.Net(lk.load_net(file), 2)
    x = rng.random((3, 4761))
    latent = "h" if name == "galaxy_ladder" else "z"  # that pictures are made of
    z_mean, z = net.infer(["z_mean", latent], sample=False, x=x)
    lk.export_onnx(net, path, "z_mean")
    (found,) = run(path, x=x)
    np.testing.assert_allclose(found, z_mean, rtol=1e-3, atol=1e-4)
    outputs = ["x_mean", "x_log_variance"]
    lk.export_onnx(net, path, outputs, inputs=latent)
    expected = net.infer(outputs, sample=False, **{latent: z})
    for a, b in zip(run(path, **{latent: z}), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_data_layers_are_inputs_and_names_may_be_odd(path, rng):
    data = L.MemoryData("x y", data=rng.random((5, 3)))
    layers = [data, L.Dense("g/weight", "x y", units=4), L.Dense("g", "g/weight", units=2)]
    net = lk.Net(layers, 2)
    lk.export_onnx(net, path, "g")
    x = rng.random((7, 3))
    np.testing.assert_allclose(run(path, **{"x y": x})[0], net.infer("g", **{"x y": x}), rtol=1e-5)


class Own(L.ReLU):
    pass


@pytest.mark.parametrize(
    ("outputs", "inputs", "words"),
    [
        ("own", None, r"'own' \(Own\): this kind of layer cannot be exported"),
        ("loss", None, r"'loss' \(SquareLoss\): this kind of layer cannot be exported"),
        ("gg", None, "no blob 'gg'; did you mean 'g'"),
        ([], None, "outputs must be the name of a blob, or a list"),
        (3, None, "outputs must be the name of a blob"),
        (["g", 3], None, "no blob 3"),
        ("g", "z", "no blob 'z'"),
        ("g", ["x", "own"], "'own' is not needed for 'g'"),
        ("x", None, "'x' is an input of the model"),
        ("b", "a", "makes 'b', which is needed, beside what is given"),
    ],
)
def test_what_cannot_be_exported(outputs, inputs, words, path):
    layers = [
        L.Input("x", shape=(4,)),
        L.Dense("g", "x", units=4),
        L.Slice("s", "g", tops=["a", "b"]),
        Own("own", "g"),
        L.SquareLoss("loss", "g", "x"),
    ]
    net = lk.Net(layers)
    with pytest.raises(NetError, match=words) as error:
        lk.export_onnx(net, path, outputs, inputs)
    assert "\n" not in str(error.value)
    assert not path.exists()
    with pytest.raises(NetError, match="cannot write"):
        lk.export_onnx(net, path.parent / "no" / "net.onnx", "g")


def test_without_the_package_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    net = lk.Net([L.Input("x", shape=(4,)), L.ReLU("y", "x")])
    with pytest.raises(NetError, match="pip install onnx"):
        lk.export_onnx(net, tmp_path / "net.onnx", "y")
