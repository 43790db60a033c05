"""Activations with a formula, for all engines with kernels.

An activation runs as array code wherever it is used.  To make it fast, write its formula, a struct
of its class's name in formulas/activations.h, and give it a row here.
"""

from __future__ import annotations

from layerkit import layers as L
from layerkit.layers.elementwise.neuron import Neuron

SETTINGS: dict[type[Neuron], str | None] = {  # the setting that a formula is given, if it has one
    L.ELU: "alpha",
    L.Exponential: None,
    L.GELU: None,
    L.LeakyReLU: "slope",
    L.ReLU: None,
    L.Sigmoid: None,
    L.SiLU: None,
    L.Softplus: None,
    L.Tanh: None,
}


def has_formula(neuron: Neuron | None) -> bool:
    """Return whether kernels can compute an activation, or have none to compute.

    A subclass of a user's own has no formula, as it may compute something else.
    """
    return neuron is None or type(neuron) in SETTINGS


def formula(neuron: Neuron | None) -> tuple[str, float]:
    """Return the name of an activation's formula, and its setting, 0 where it has none.

    Args:
        neuron: one that has a formula; None stands for y = x.
    """
    if neuron is None:
        return "Linear", 0.0
    setting = SETTINGS[type(neuron)]
    return type(neuron).__name__, float(getattr(neuron, setting)) if setting else 0.0
