"""Neuron: the base class of elementwise activations, usable alone or as `neuron=` of others."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.errors import NetError
from layerkit.layer import Layer, Shape
from layerkit.settings import Rule, Tops


class Neuron(Layer):
    """Elementwise activation y = a(x), a layer of its own or the `neuron=` of another.

    The derivative a'(x) of most can be computed from y alone, so that Dense can activate in place
    and keep only y.  Others, of which several x have one y, say so by `from_input`.  A subclass
    defines `activate` and `differentiate`, and is found by its `neuron_name` if it has one.
    An activation needs no more; engines/activations.py tells how to make it fast.
    One with parameters, as PReLU, declares them in `declare`, as parameters of the layer that has
    it, and computes their diffs in `differentiate_own`.

        L.Dense("g1", "x", units=128, neuron="leaky_relu")
        L.Dense("g1", "x", units=128, neuron=L.LeakyReLU.of(slope=0.2))

    Attributes:
        neuron_name: the name by which `neuron=` finds it.
        from_input: whether a'(x) is computed from x instead of y.
        rectifies: whether it is close to max(x, 0), for which He et al. made their initialiser.
    """

    neuron_name: ClassVar[str]
    from_input: ClassVar[bool] = False
    rectifies: ClassVar[bool] = False
    registry: ClassVar[dict[str, type[Neuron]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the activation under its name."""
        super().__init_subclass__(**kwargs)
        if "neuron_name" in vars(cls):  # not an inherited one, which is its parent's
            cls.registry[cls.neuron_name] = cls

    def __init__(self, name: str, bottom: str, *, tops: Tops | None = None):
        super().__init__(name, [bottom], tops)

    @classmethod
    def of(cls, **settings: Any) -> Neuron:
        """Return this activation with settings, for `neuron=` of another layer.

        Args:
            settings: those of the class: `L.ELU.of(alpha=0.5)`.

        Raises:
            NetError: a setting that the class does not have, or does not accept.
        """
        name = getattr(cls, "neuron_name", cls.__name__)
        return cls(name, name, **settings)

    @classmethod
    def named(cls, neuron: str | Neuron) -> Neuron:
        """Return the activation of this name with default settings, or the one that is given."""
        if isinstance(neuron, Neuron):
            return neuron
        if neuron not in cls.registry:
            raise NetError(f"unknown neuron {neuron!r}: choose one of {', '.join(cls.registry)}")
        return cls.registry[neuron].of()

    def activate(self, xp: Any, x: Array, y: Array) -> None:
        """Compute y = a(x); `y` may be `x` itself."""
        raise NotImplementedError

    def differentiate(self, xp: Any, known: Array, dy: Array, dx: Array) -> None:
        """Compute dx = dy * a'(x) from y, or if `from_input` from x; `dx` may be neither."""
        raise NotImplementedError

    def declare(self, layer: Layer, shape: Shape) -> None:
        """Declare the activation's parameters in a layer whose numbers of this shape it changes."""

    def differentiate_own(self, xp: Any, known: Array, dy: Array) -> None:
        """Compute the diffs of the activation's parameters, given what `differentiate` is."""

    def room(self, layer: Layer, shape: Shape) -> Blob | None:
        """Declare what another layer needs for this activation.

        Returns:
            The buffer in which it keeps x, if a'(x) is computed from that.
        """
        self.declare(layer, shape)
        return layer.buffer(shape) if self.from_input else None

    def enter(self, xp: Any, y: Array, inner: Blob | None) -> None:
        """Compute y = a(y) in place in another layer; keep what y was in `inner` if it is there."""
        if inner is None:
            self.activate(xp, y, y)
        else:
            inner.data[...] = y
            self.activate(xp, inner.data, y)

    def leave(self, xp: Any, y: Array, inner: Blob | None, dy: Array, dx: Array) -> None:
        """Compute dx = dy * a'(x) in another layer, after `enter`."""
        known = y if inner is None else inner.data
        self.differentiate(xp, known, dy, dx)
        self.differentiate_own(xp, known, dy)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare the activation's parameters, if it has any; return the bottom's shape."""
        self.declare(self, shapes[0])
        return shapes

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute y = a(x)."""
        self.activate(self.xp, bottoms[0].data, tops[0].data)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute dx = dy * a'(x)."""
        known = bottoms[0].data if self.from_input else tops[0].data
        if bottoms[0].diff is not None:
            self.differentiate(self.xp, known, tops[0].diff, bottoms[0].diff)
        self.differentiate_own(self.xp, known, tops[0].diff)


class NeuronRule(Rule):
    """Rule for an activation: its name, or the layer itself with settings of its own."""

    kept = False

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The names of all activations, in words."""
        names = ", ".join(map(repr, Neuron.registry))
        return f"one of {names}, or an activation with settings such as LeakyReLU.of(slope=0.1)"

    def accept(self, value: Any) -> str | Neuron:
        """Return the name, or the activation."""
        if isinstance(value, Neuron):
            return value
        if not isinstance(value, str) or value not in Neuron.registry:
            raise ValueError
        return value


Activation = Annotated[str | Neuron, NeuronRule()]
