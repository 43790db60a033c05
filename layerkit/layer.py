"""The Layer base class and the contract between layers and the net."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar, NoReturn

import numpy as np

from layerkit import initializers
from layerkit.backends import philox
from layerkit.backends.base import Array, Backend
from layerkit.blob import Blob, Parameter, SharedParameter, Statistic
from layerkit.errors import ContractError, NetError, brief
from layerkit.run import Run
from layerkit.settings import Checked, Name, Names, Number, Rule, Sizes, accept, checked
from layerkit.settings.names import Named, quoted
from layerkit.settings.tuning import COMMON, DEFAULTS, TUNING, Lender
from layerkit.system.memory import in_words

Shape = tuple[int, ...]


def overrides(cls: type, kernel: str, stands_for: Sequence[str]) -> bool:
    """Tell whether `cls` has `kernel`, from no further up than the array code it replaces."""

    def place(name: str) -> int:
        return next((i for i, c in enumerate(cls.__mro__) if name in vars(c)), len(cls.__mro__))

    return hasattr(cls, kernel) and all(place(kernel) <= place(name) for name in stands_for)


def checked_shape(shape: Any) -> Shape:
    """Return a shape as a tuple of whole numbers, or raise a ValueError that says what is wrong."""
    try:
        return Sizes().accept(shape)
    except ValueError:
        raise ValueError(
            "a shape is a tuple of positive whole numbers, each below 2^31, such as (3,), got "
            f"{brief(shape)}"
        ) from None


class Layer(Checked):
    """One step of a net, which reads bottom blobs, writes top blobs, and knows its derivative.

    A layer in a list is a description: `Net` copies it and runs the copy, so one list can make
    several nets.  To write a new layer, subclass, and define

    * `__init__(self, name, bottom, ..., *, settings, tops=None)`, which calls
      `super().__init__(name, [bottom, ...], tops)` and stores its settings;
    * `setup(shapes)`: given the bottoms' shapes (of one example, without the batch axis), declare
      parameters with `self.parameter`, running means and the like with `self.statistic`, and work
      space with `self.buffer`, and return the tops' shapes.  Call `self.fail` on shapes that do
      not fit;
    * `forward(bottoms, tops)`: compute every `top.data` from the `bottom.data`;
    * `backward(bottoms, tops)`: compute the diffs from the `top.diff`.

    **The contract.**  The net allocates every blob, parameter, diff and buffer before the first
    pass.  `forward` overwrites `top.data` in full; `backward` overwrites in full the diff of each
    parameter and each bottom.  Always `=`, never `+=`: if several layers read one blob, the net
    gives each a diff of its own and adds them up.  `bottom.diff` is None where no gradient is
    needed: then skip it.  Write *into* the arrays (`top.data[...] = `, `out=`), never rebind them.
    A layer changes nothing else: not the data of its bottoms, not the diff of its tops.  The number
    of rows can change from pass to pass, up to the net's batch size: take it from the arrays.
    A buffer keeps what `forward` leaves for `backward`, and no longer: inference has buffers of its
    own.  `forward` and `backward` return nothing.  The first pass that a net makes checks all this,
    and raises a ContractError that names the layer.

    **Descriptions.**  A net copies the layers that it is made from, with their lists, dictionaries
    and arrays, so nets made from one list have nothing in common; `shared` names the attributes
    that are left out, such as a data layer's arrays.

    The array code of `forward` and `backward` is the specification and complete by itself.  An
    engine (layerkit.engines) may run a layer by faster code that it has for exactly this class.

    On a GPU a training step is recorded once and replayed, without another call of any method, if
    every layer can be: one that the engine has kernels for, or one that declares that its array
    code can be replayed (`recordable`).  Otherwise layers are called in each step.

    **Settings that every layer takes.**  A layer with parameters takes these by keyword, though its
    constructor need not know of them.  One that says `**common: Unpack[layerkit.Tuning]`, and hands
    that to `super().__init__`, shows them to editors and type checkers:

    * `shares="other"`: the layer has no parameters of its own, but uses those of layer "other",
      which must have the same names and shapes.  Initial values, regularisation, freezing and
      updates are those of the other layer.  Each of the layers writes its part of the gradient in
      full, as the contract says; the net adds the parts up;
    * `rate=2.0`, `decay=0.0`: what a solver's rate, and the l1, l2 and `weight_decay` of these
      parameters, are multiplied by (Caffe's lr_mult and decay_mult), each at least 0;
    * `max_norm=3.0`: after each update the weights of each output, along all axes but the last, are
      scaled down to at most this Euclidean norm (Mocha's L2Cons; Srivastava et al., 2014, section
      5.1).  Gains and biases, one number for each output, are left alone.

    A dict says it for single parameters: `rate={"bias": 2.0}`.  See Parameter, which has them.

    A *loss* layer's top holds one value per example, shape (n,).  The net takes the mean, times the
    layer's `weight`, as the layer's share of the objective, and sets `top.diff` to weight / n.

    Attributes:
        name, bottoms, tops: the layer's own name and those of its blobs.
        xp: the array module (numpy or cupy); array code written with it runs on both.
        backend: the backend, for `gemm`.
        run: the state that the layers of a net share; see `Run`.
        shares: the name of the layer whose parameters this one uses, or None.
        parameters: name -> Parameter ("weight" -> ...), in the order declared; those of another
            layer are each a SharedParameter.
        statistics: name -> Statistic, which the layer measures in training.
    """

    is_loss: ClassVar[bool] = False
    is_metric: ClassVar[bool] = False  # its top holds one value per example, reported as a mean
    recordable: ClassVar[bool] = False  # its array code can be replayed
    is_source: ClassVar[bool] = False  # brings data of its own: no bottoms, and a `position`
    keeps_integers: ClassVar[bool] = False  # copies its bottoms, also those that hold integers
    integer_blobs: frozenset[str] = frozenset()  # its bottoms and tops that hold integers
    shared: ClassVar[tuple[str, ...]] = ()  # attributes that copies of a description share
    declaring = True  # until the net has set the layer up
    decided: ClassVar[tuple[str, ...]] = ("name", "bottoms", "tops", "shares")  # from then on
    instead = (
        "only a net that is being made looks at it: change the description, in net.descriptions, "
        "and make another net"
    )

    @property
    def fixed(self) -> tuple[str, ...]:  # type: ignore[override]
        """The attributes that cannot be assigned any more, as nothing reads them after `setup`."""
        return () if self.declaring else self.decided

    @classmethod
    def own_rules(cls) -> dict[str, Rule]:
        """Return the rule for a loss layer's weight."""
        return {"weight": Number(least=0)} if cls.is_loss else {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make a wrong setting an error that names the layer; see layerkit.settings."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__, _label, COMMON, DEFAULTS)  # type: ignore[method-assign]

    def __init__(
        self,
        name: str,
        bottoms: Sequence[str] = (),
        tops: Sequence[str] | str | None = None,
        *,
        shares: Lender | None = None,
        **tuning: Any,
    ):
        """Name the layer `name`, and its single top too unless `tops` says otherwise."""
        self.name = name
        self.shares = shares
        self._tuning = dict(TUNING)
        self.name = accept(Name(), name, "its name", self.label())
        for setting, value in tuning.items():
            if setting not in TUNING:
                self.fail(f"got an unexpected keyword argument {setting!r}")
            self.take_common(setting, accept(COMMON[setting], value, setting, self.label()))
        for what, value in (("bottoms", bottoms), ("tops", tops)):
            if value is not None and not isinstance(value, str | list | tuple):
                self.fail(f"{what} must be a name or a list of names, got {brief(value)}")
        self.bottoms = [bottoms] if isinstance(bottoms, str) else list(bottoms or ())
        tops = self.name if tops is None else accept(Names(), tops, "tops", self.label())
        self.tops = [tops] if isinstance(tops, str) else list(tops)
        for bottom in self.bottoms:
            accept(Name(), bottom, "the name of a bottom", self.label())
        if self.is_loss:
            self.weight = 1.0  # in the objective
        self.parameters: dict[str, Parameter] = Named("parameter")
        self.statistics: dict[str, Statistic] = Named("statistic")
        self.buffers: list[Blob] = []
        self.run: Run
        self.backend: Backend
        self.xp: Any

    # For a subclass to define.

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare parameters and buffers; return the tops' shapes, without the batch axis."""
        self.breaks("its class does not define setup(shapes)")

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the data of every top."""
        self.breaks("its class does not define forward(bottoms, tops)")

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute the diff of every parameter, and of every bottom that has one."""
        self.breaks("its class does not define backward(bottoms, tops), which its gradient needs")

    def check_data(self, bottoms: list[Blob]) -> None:
        """Fail if the bottoms hold what the layer cannot work on, such as labels of no class.

        `forward` calls this on the CPU.  On a GPU it is called when a loss is not finite, to say
        why.
        """

    def differentiable(self, bottom: int) -> bool:
        """Tell whether the layer has a gradient for bottom number `bottom`."""
        return True

    def reads_integers(self, bottom: int) -> bool:
        """Tell whether bottom number `bottom` may hold integers instead of floats; see Input."""
        return False

    def multiplications(self) -> int:
        """Return the number of multiplications in the layer's matrix products, per example."""
        return 0

    def after(self) -> list[str]:
        """Name the layers that must be set up before this one, besides those below it."""
        return []

    # For a subclass to call.

    def parameter(
        self,
        name: str,
        shape: Shape,
        init: initializers.Initializer | str | float,
        l1: float = 0.0,
        l2: float = 0.0,
        groups: int = 1,
    ) -> Parameter:
        """Declare a Parameter; `init` is an initialiser, its name, or a constant."""
        shape = self._new_shape(name, shape, "parameter")
        groups = groups if len(shape) > 1 else 0
        try:
            init = initializers.get(init)
        except (NetError, ValueError) as error:
            self.fail(f"{name}: {error}")
        tuning = {setting: self._tuned(setting, name, groups) for setting in TUNING}
        own = f"{self.name}/{name}"
        if self.shares is None:
            parameter = Parameter(own, shape, init, l1, l2)
            for setting, value in tuning.items():
                setattr(parameter, setting, value)
        else:
            given, usual = {**tuning, "l1": l1, "l2": l2}, {**TUNING, "l1": 0, "l2": 0}
            wanted = {k: v for k, v in given.items() if v != usual[k]}
            parameter = SharedParameter(own, shape, self.shares, name, wanted)
        parameter.groups = groups
        self.parameters[name] = parameter
        return parameter

    def _tuned(self, setting: str, name: str, groups: int) -> Any:
        """Return a setting in `_tuning` for a parameter of this layer."""
        value = self._tuning[setting]
        by_name = isinstance(value, dict)
        if setting == "max_norm" and not groups:
            if by_name and value.get(name) is not None:
                self.fail(f"max_norm: {name!r} has one number for each output, not weights")
            return None
        return value.get(name, TUNING[setting]) if by_name else value

    def used(self, name: str, lender: str) -> Parameter:
        """Declare parameter `name` of layer `lender`, which `after` names, as one of this layer's.

        Its `shape` and `data` are those of the other layer's parameter.
        """
        if (there := self.run.declared.get(lender)) is None:
            self.fail(f"there is no layer {lender!r} whose parameter {name!r} it could use")
        if name not in there:
            self.fail(f"uses parameter {name!r} of layer {lender!r}, which has {quoted(there)}")
        its = there[name]
        own = f"{self.name}/{name}"
        self.parameters[name] = SharedParameter(own, its.shape, lender, name, {})
        return self.parameters[name]

    def statistic(self, name: str, shape: Shape, value: float) -> Statistic:
        """Declare an array that the layer measures itself, at first `value`; see Statistic."""
        shape = self._new_shape(name, shape, "statistic")
        data = self.backend.zeros(shape, self.run.dtype)
        data.fill(value)
        self.statistics[name] = Statistic(f"{self.name}/{name}", data)
        return self.statistics[name]

    def _new_shape(self, name: str, shape: Shape, kind: str) -> Shape:
        """Return the shape of a new array of the layer, whose name and shape are checked."""
        if not self.declaring:
            self.fail(f"{name}: {kind}s are declared in setup, when a net is built")
        if not isinstance(name, str) or not name:
            self.fail(f"a {kind}'s name is a non-empty string, got {name!r}")
        if name in self.parameters or name in self.statistics:
            self.fail(f"declares {kind} {name!r} twice; give each its own name")
        try:
            return checked_shape(shape)
        except ValueError as error:
            self.fail(f"{name}: {error}")

    def buffer(self, shape: Shape, dtype: Any = None) -> Blob:
        """Declare work space of shape (n, *shape) in `.data`, resized with the batch."""
        run = self.run
        if not self.declaring:
            self.fail("buffers are declared in setup, when a net is built")
        try:
            shape = checked_shape(shape)
        except ValueError as error:
            self.fail(f"buffer: {error}")
        needed = math.prod(shape) * run.batch_size * np.dtype(dtype or run.dtype).itemsize
        if needed > (free := run.memory()):
            self.fail(
                f"a buffer of shape {shape} would take {in_words(needed)} for a batch of "
                f"{run.batch_size}, and {in_words(free)} are free"
            )
        buffer = Blob.allocate(self.name, run.batch_size, shape, run.backend, dtype or run.dtype)
        self.buffers.append(buffer)
        return buffer

    @functools.cached_property
    def stream(self) -> int:
        """The stream of this layer's random numbers."""
        return self.run.stream_of(self.name)

    def normal(self, shape: Shape) -> Array:
        """Draw standard normal numbers of this layer for the current forward pass."""
        run = self.run
        return philox.normal(self.xp, shape, run.seed, run.stream_of(self.name), run.passes)

    def uniform(self, shape: Shape) -> Array:
        """Draw uniform numbers in (0, 1) of this layer for the current forward pass."""
        run = self.run
        return philox.uniform(self.xp, shape, run.seed, run.stream_of(self.name), run.passes)

    def fail(self, message: str) -> NoReturn:
        """Raise NetError with the layer's name and type in front."""
        raise NetError(f"{self.label()}: {message}")

    def label(self) -> str:
        """Return what messages call this layer: its name and type."""
        return _label(self, getattr(self, "name", None))

    def breaks(self, message: str) -> NoReturn:
        """Raise a ContractError with the layer's name and type in front."""
        raise ContractError(f"layer {self.name!r} ({type(self).__name__}): {message}")

    def take_common(self, setting: str, value: Any) -> None:
        """Keep a setting that every layer takes; it has been checked."""
        if setting in TUNING:
            self._tuning[setting] = value
        else:
            setattr(self, setting, value)

    def check_tuning(self) -> None:
        """Fail if a setting of parameters is for none of those that the layer has declared."""
        there = {k: p for k, p in self.parameters.items() if p.name == f"{self.name}/{k}"}
        own = {k: p for k, p in there.items() if getattr(p, "lender", self.shares) == self.shares}
        for setting, value in self._tuning.items():
            if isinstance(value, dict):
                for name in value.keys() - own.keys():
                    self.fail(f"{setting}: {name!r} is none of its own parameters, {quoted(own)}")
            elif value != TUNING[setting] and not own:
                self.fail(f"has no parameters of its own, so leave {setting}={value:g} out")
            elif setting == "max_norm" and value and not any(p.groups for p in own.values()):
                self.fail("max_norm: none of its parameters has more than a number for each output")

    def __reduce_ex__(self, protocol: Any) -> Any:
        if "run" in vars(self):
            self.fail(
                "belongs to a net and cannot be copied or pickled without it; copy the list of "
                "layers that the net was made from"
            )
        return super().__reduce_ex__(protocol)

    # For the net to call.

    def copied(self) -> Layer:
        """Copy the description, with every list, dictionary and array that could be changed.

        Anything that cannot be copied, such as an open file, is shared.
        """
        layer = copy.copy(self)
        memo: dict[int, Any] = {id(self): layer}
        memo.update((id(vars(self)[name]), vars(self)[name]) for name in self.shared)
        for name, value in vars(self).items():
            with suppress(Exception):
                setattr(layer, name, copy.deepcopy(value, memo))
        return layer

    def attach(self, run: Run) -> Layer:
        """Return a copy of this description that belongs to one net and can be set up and run."""
        layer = self.copied()
        layer.open()  # until it is set up
        layer.run, layer.backend, layer.xp = run, run.backend, run.backend.xp
        layer.parameters, layer.buffers = Named(f"parameter of layer {self.name!r}"), []
        layer.statistics = Named(f"statistic of layer {self.name!r}")
        return layer

    def __repr__(self) -> str:
        bottoms = ", ".join(self.bottoms)
        return f"{type(self).__name__}({self.name!r}: {bottoms} -> {', '.join(self.tops)})"


def _label(layer: Layer, /, *args: Any, **settings: Any) -> str:
    """Return what messages call a layer, given the arguments of its constructor."""
    kind, name = type(layer).__name__, args[0] if args else settings.get("name")
    return f"layer {kind}" if name is None else f"layer {brief(name)} ({kind})"
