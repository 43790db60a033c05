"""Every activation has all that CONTRIBUTING.md lists under "Add an activation"."""

import inspect
import re
from pathlib import Path

import pytest
from cases import CASES, NEURONS

import layerkit as lk
from layerkit import layers as L
from layerkit.engines import activations
from layerkit.layers.elementwise.neuron import Neuron
from layerkit.saving.onnx.layers import ACTIVATIONS

HEADER = Path(lk.__file__).parent / "engines" / "formulas" / "activations.h"


def missing(kind, name):
    """List what an activation lacks, each with the file in which it belongs."""
    header = HEADER.read_text(encoding="utf-8")
    own = [p for p in inspect.signature(kind).parameters if p not in ("name", "bottom", "tops")]
    steps = {
        "its class, in layers/__init__.py": hasattr(L, kind.__name__),
        "a row of NEURONS, in tests/cases.py": name in NEURONS,
        "a struct, in engines/formulas/activations.h": f"struct {kind.__name__} {{" in header,
        "its struct in the list ACTIVATIONS, in engines/formulas/activations.h": (
            f"with({kind.__name__})" in header
        ),
        "a row of SETTINGS, in engines/activations.py": kind in activations.SETTINGS,
        f"its setting {own} in its row of engines/activations.py": (
            own == [setting for setting in [activations.SETTINGS.get(kind)] if setting]
        ),
        "a row of ACTIVATIONS, in saving/onnx/layers.py": kind.__name__ in ACTIVATIONS,
    }
    return [step for step, taken in steps.items() if not taken]


OURS = [
    kind
    for kind in Neuron.registry.values()
    if kind.__module__.startswith("layerkit.") and kind is not L.PReLU  # it has parameters
]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_nothing_is_missing(kind):
    assert missing(kind, kind.neuron_name) == []


def test_the_activation_with_parameters_has_rows_as_a_layer_and_as_a_neuron():
    assert {"PReLU", "Dense-prelu"} <= {case.id for case in CASES}


def test_each_missing_step_is_named():
    class Cube(L.LeakyReLU):
        """A cube, of which nothing but the class is there."""

    assert len(missing(Cube, "cube")) == 7


def test_the_list_of_formulas_has_each_struct_once():
    header = HEADER.read_text(encoding="utf-8")
    structs = re.findall(r"struct (\w+) \{", header)
    assert sorted(re.findall(r"with\((\w+)\)", header)) == sorted(structs)
