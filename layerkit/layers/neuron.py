"""Neuron: the base class of elementwise activations, usable alone or as `neuron=` of Dense."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.errors import NetError
from layerkit.layer import Layer, Shape
from layerkit.settings import Rule, Tops


class Neuron(Layer):
    """Elementwise activation y = a(x) whose derivative a'(x) can be computed from y alone.

    So Dense can activate in place and keep only y.  A subclass defines `activate` and
    `differentiate`, and is found by its `neuron_name` if it has one.
    """

    neuron_name: ClassVar[str]
    registry: ClassVar[dict[str, type[Neuron]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the activation under its name."""
        super().__init_subclass__(**kwargs)
        if "neuron_name" in vars(cls):  # not an inherited one, which is its parent's
            cls.registry[cls.neuron_name] = cls

    def __init__(self, name: str, bottom: str, *, tops: Tops | None = None):
        super().__init__(name, [bottom], tops)

    @classmethod
    def named(cls, name: str) -> Neuron:
        """Return the activation of this name, with default settings, for use in another layer."""
        if name not in cls.registry:
            raise NetError(f"unknown neuron {name!r}: choose one of {', '.join(cls.registry)}")
        return cls.registry[name](name, name)

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = a(x); `y` may be `x` itself."""
        raise NotImplementedError

    def differentiate(self, xp: Any, y: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * a'(x), with a'(x) computed from y."""
        raise NotImplementedError

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Return the bottom's shape for the top; declare no parameters."""
        return shapes

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x)."""
        self.activate(self.xp, bottoms[0].data, tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = dy * a'(x)."""
        if bottoms[0].diff is not None:
            self.differentiate(self.xp, tops[0].data, tops[0].diff, bottoms[0].diff)


class NeuronName(Rule):
    """Rule for the name of an activation."""

    kept = False

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The names of all activations, in words."""
        return f"one of {', '.join(map(repr, Neuron.registry))}"

    def accept(self, value: Any) -> str:
        """Return the name."""
        if not isinstance(value, str) or value not in Neuron.registry:
            raise ValueError
        return value


Activation = Annotated[str, NeuronName()]
