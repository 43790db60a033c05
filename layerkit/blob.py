"""Blobs, the arrays between layers; Parameters, which are learned, in an Arena; and Statistics."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from layerkit.backends.base import Array, Backend
from layerkit.errors import ContractError, NetError
from layerkit.settings import Checked, Flag, NotNegative, Positive

INTEGERS = "int64"  # dtype of the blobs that hold integers
ALIGNMENT = 16  # elements: every parameter starts on a cache line (64 bytes of float32)


class ReboundError(ContractError):
    """An attempt to replace an array of a blob or a parameter by another."""


class _Bound:
    """An object whose arrays `data` and `diff` are written into, and never replaced.

    Other objects (the next layer, the arena, a solver) hold views of its memory, so none of them
    would see an array put in its place.
    """

    __slots__ = ()
    name: str

    def __setattr__(self, name: str, value: Any) -> None:
        # `p.diff += x` ends in an assignment of the very array that is there.
        if name in ("data", "diff") and getattr(self, name, value) is not value:
            raise ReboundError(
                f"{type(self).__name__.lower()} {self.name!r}: its {name} cannot be replaced by "
                f"another array, as others hold the one that is there; write into the array: "
                f".{name}[...] = values"
            )
        object.__setattr__(self, name, value)

    def _bind(self, data: Array | None, diff: Array | None) -> None:
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "diff", diff)


class Blob(_Bound):
    """A named array that flows between layers and, if needed, its gradient.

    Attributes:
        name: the name by which layers refer to it.
        shape: shape of one example, without the batch axis.
        data: backend array of shape (n, *shape), row-major, of the net's floats or of int64 (see
            `integers` of Input); n is the number of rows of the last forward pass, at most the
            net's batch size.
        diff: d loss / d data, of the shape of data, or None if no gradient is needed.

    Memory for a whole batch is allocated once; `resize` only moves the views.  Write into the
    arrays: assigning another array to `data` or `diff` raises a ContractError.
    """

    __slots__ = ("_data", "_diff", "data", "diff", "name", "shape")

    def __init__(self, name: str, data: Array, diff: Array | None = None):
        self.name = name
        self.shape: tuple[int, ...] = tuple(data.shape[1:])
        self._data, self._diff = data, diff
        self.data: Array
        self.diff: Array  # typed loosely, so that layers need not check for None twice
        self._bind(data, diff)

    @classmethod
    def allocate(
        cls,
        name: str,
        batch_size: int,
        shape: tuple[int, ...],
        backend: Backend,
        dtype: Any,
        gradient: bool = False,
    ) -> Blob:
        """Allocate a zero-filled blob of `batch_size` rows, with a diff if `gradient` is true."""
        full = (batch_size, *shape)
        return cls(
            name, backend.zeros(full, dtype), backend.zeros(full, dtype) if gradient else None
        )

    def set_diff(self, diff: Array | None) -> None:
        """Give the blob a diff for all the rows it was allocated with, or take it away."""
        self._diff = diff
        self._bind(self.data, diff)

    def branch(self, diff: Array | None) -> Blob:
        """Return a blob of this name and data with its own diff, for one of several readers."""
        return Blob(self.name, self._data, diff)

    def resize(self, rows: int) -> None:
        """Make `data` and `diff` views of the first `rows` rows."""
        self._bind(self._data[:rows], None if self._diff is None else self._diff[:rows])

    @property
    def integers(self) -> bool:
        """True if it holds integers instead of the net's floats; it then has no diff."""
        return self._data.dtype.kind == "i"

    @property
    def whole(self) -> Array:
        """The data of a whole batch, however many rows are in use."""
        return self._data

    def move(self, memory: Array, rows: int) -> None:
        """Move to other memory for a whole batch, and use the first `rows` rows of it."""
        self._data = memory
        self.resize(rows)

    def __repr__(self) -> str:
        return f"Blob({self.name!r}, {tuple(self.data.shape)}, diff={self.diff is not None})"


class Parameter(Checked, _Bound):
    """A learned array of a layer and its gradient: views into the net's Arena.

    Attributes:
        name: "layer/parameter", for example "g1/weight".
        shape: its shape; `data` and `diff` are backend arrays of this shape.  Write into them, as
            into a Blob's.
        l1, l2: regularisation; the objective gains l1 * sum|w| + l2 / 2 * sum w^2.
        rate: what a solver's rate is multiplied by for this parameter, default 1.
        decay: what l1, l2 and a solver's `weight_decay` are multiplied by, default 1.
        groups: into how many groups of neighbours the first axis falls, each of which leads to
            outputs of its own along the last axis; default 1.  It is 0 for gains, biases and all
            of one axis, which have one number for each output.
        max_norm: largest Euclidean norm of the weights of one output, which lie along all axes but
            the last, in one of the groups; after an update longer ones are scaled down to it.
            None, the default, leaves them alone.
        trainable: False once frozen; a solver then leaves it alone.
        borrowed: whether it is one of few that another net lends this one (`share_only`); it is
            never trainable here.
    """

    __slots__ = (
        "borrowed",
        "data",
        "decay",
        "diff",
        "groups",
        "init",
        "l1",
        "l2",
        "max_norm",
        "name",
        "offset",
        "rate",
        "shape",
        "trainable",
    )

    l1: NotNegative
    l2: NotNegative
    rate: NotNegative
    decay: NotNegative
    max_norm: Positive | None
    trainable: Flag

    def __init__(self, name: str, shape: tuple[int, ...], init: Any, l1: float, l2: float):
        self.name = name
        self.shape = shape
        self.init = init
        self.l1 = l1
        self.l2 = l2
        self.groups = int(len(shape) > 1)
        self.borrowed = False
        self.rate = self.decay = 1.0
        self.max_norm = None
        self.trainable = True
        self.offset = 0
        self.data: Array
        self.diff: Array
        self._bind(None, None)

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "trainable" and value is not False and self.borrowed:
                raise NetError(
                    f"parameter {self.name!r} belongs to another net (share_only), and is trained "
                    "there; it stays frozen in this one"
                )
            super().__setattr__(name, value)

    def lend(self, other: Parameter, diff: Array | None) -> None:
        """Let a parameter of another net stand for this one, frozen there."""
        other.trainable, other.borrowed = False, True
        other.bind(self.data, diff, 0)

    def bind(self, data: Array, diff: Array | None, offset: int) -> None:
        """Bind the parameter to these arrays, which start at `offset` in an arena."""
        self.offset = offset
        self._bind(data, diff)

    def label(self) -> str:
        """Return the parameter's name for messages."""
        return f"parameter {self.name!r}"

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def penalty(self) -> tuple[float, float]:
        """The factors of sum|w| and sum w^2 / 2 in the objective: l1 and l2, times the decay."""
        return self.l1 * self.decay, self.l2 * self.decay

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, {self.shape}, trainable={self.trainable})"


class Statistic(_Bound):
    """An array that a layer measures in training and uses in phase "test", such as a running mean.

    A snapshot has it, and nets that share parameters share it; but it is not learned: no solver
    changes it, nothing regularises it, and freezing does not concern it.

    Attributes:
        name: "layer/statistic", for example "n1/mean".
        shape: its shape; `data` is a backend array of this shape.  Write into it.
    """

    __slots__ = ("data", "diff", "name", "shape")

    def __init__(self, name: str, data: Array):
        self.name, self.shape = name, tuple(data.shape)
        self.data: Array
        self._bind(data, None)

    def bind(self, data: Array) -> None:
        """Stand for an array of another net."""
        self._bind(data, None)

    def __repr__(self) -> str:
        return f"Statistic({self.name!r}, {self.shape})"


def _of_source(name: str) -> property:
    """Return a property that is the attribute `name` of an object's `source`."""

    def assign(self: SharedParameter, value: Any) -> None:
        setattr(self.source, name, value)

    return property(lambda self: getattr(self.source, name), assign)


class SharedParameter(Parameter):
    """A parameter of another layer of the net, as a layer that uses it too sees it.

    The layer writes its part of the gradient into `diff`, in full; the net adds the parts up in the
    diff of the parameter itself, which is the one in `net.params`.

    Attributes:
        source: the parameter itself, known once the net is wired.
        data: the array of `source`.
        l1, l2, rate, decay, max_norm, trainable, borrowed: those of `source`; assigning one of
            them assigns it there.
        lender, key: the layer whose parameter it is, and the parameter's name within that layer.
        wanted: those of these settings that the layer was given itself.
    """

    __slots__ = ("key", "lender", "source", "wanted")

    def __init__(
        self, name: str, shape: tuple[int, ...], lender: str, key: str, wanted: dict[str, float]
    ):
        self.name, self.shape, self.init = name, shape, None
        self.groups = int(len(shape) > 1)
        self.lender, self.key, self.wanted = lender, key, wanted
        self.source: Parameter
        self.offset = 0
        self._bind(None, None)

    def stand_for(self, source: Parameter) -> None:
        """Make this a view of `source`, whose name it takes; `take` binds it to arrays."""
        self.name, self.source = source.name, source

    def take(self, diff: Array | None) -> None:
        """Bind the parameter to the data of `source`, and to an array for its part of the diff."""
        self.bind(self.source.data, diff, self.source.offset)

    if not TYPE_CHECKING:  # which would not let an attribute become a property
        l1, l2, rate, decay, max_norm, trainable, borrowed = map(
            _of_source, ("l1", "l2", "rate", "decay", "max_norm", "trainable", "borrowed")
        )


class Arena:
    """All parameters of a net end to end in one flat array, and their diffs in another.

    An update, a norm or a snapshot is then one call on a flat array.  Parameters start on cache
    lines; the padding between them is zero and stays zero.

    Attributes:
        data, diff: flat backend arrays of equal length.  `diff` is None in a net without gradients.
        parameters: name -> Parameter, in the order of the net.
    """

    def __init__(self, parameters: list[Parameter], backend: Backend, dtype: Any, gradient: bool):
        offsets, size = [], 0
        for p in parameters:
            offsets.append(size)
            size += -(-p.size // ALIGNMENT) * ALIGNMENT
        self.data = backend.zeros((size,), dtype)
        self.diff: Any = backend.zeros((size,), dtype) if gradient else None
        self.parameters = {p.name: p for p in parameters}
        for p, offset in zip(parameters, offsets, strict=True):
            span = slice(offset, offset + p.size)
            diff = None if self.diff is None else self.diff[span].reshape(p.shape)
            p.bind(self.data[span].reshape(p.shape), diff, offset)

    def trainable_spans(self, but: Container[str] = ()) -> list[slice]:
        """Return the spans of the flat arrays that are not frozen, neighbours alike merged.

        All parameters of a span have the same `multipliers`.

        Args:
            but: names of parameters to leave out.
        """
        spans: list[slice] = []
        last: Parameter | None = None
        for p in self.parameters.values():
            if p.trainable and p.name not in but:
                stop = p.offset + -(-p.size // ALIGNMENT) * ALIGNMENT
                alike = last is not None and (last.rate, last.decay) == (p.rate, p.decay)
                if alike and spans[-1].stop == p.offset:
                    spans[-1] = slice(spans[-1].start, stop)
                else:
                    spans.append(slice(p.offset, stop))
                last = p
        return spans

    def multipliers(self, span: slice) -> tuple[float, float]:
        """Return what rate and decay are multiplied by in a span of `trainable_spans`."""
        first = next((p for p in self.parameters.values() if p.offset == span.start), None)
        return (1.0, 1.0) if first is None else (first.rate, first.decay)
