"""One row for each layer and each setting that matters: the generic tests run over them.

`CASES` has the rows, whose nets run array code; `WITH_KERNELS` adds the same for compiled kernels,
where the layer has any.

A row says how to make the layer, what its bottoms hold, what comes out according to a slow
reference that shares no code with the layer, and the same as a JAX function.  A new layer needs a
row here; test_layers.py fails without one.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import math
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from scipy import integrate, interpolate, ndimage, signal, special, stats

import layerkit as lk
from layerkit import layers as L
from layerkit.backends import philox
from layerkit.engines.cpu.runners import RUNNERS
from layerkit.engines.cuda.runners import RUNNERS as CUDA_RUNNERS
from layerkit.layers.elementwise.neuron import Neuron

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Bottom:
    """A bottom's values, `draw(rng, shape)`, and the shape of an example (None: a random one)."""

    draw: Callable[[np.random.Generator, Shape], np.ndarray]
    shape: Shape | None = None


def normal(*shape: int) -> Bottom:
    return Bottom(lambda rng, size: rng.standard_normal(size), shape or None)


def unit_interval() -> Bottom:
    return Bottom(lambda rng, size: rng.uniform(size=size))


def shares(*shape: int) -> Bottom:
    return Bottom(lambda rng, size: rng.uniform(size=size), shape)


def away_from_zero(*shape: int) -> Bottom:
    """Numbers of either sign, of magnitudes from 1/2 to 2."""
    return Bottom(
        lambda rng, size: rng.uniform(0.5, 2, size) * rng.choice([-1, 1], size), shape or None
    )


def zeros_and_ones() -> Bottom:
    return Bottom(lambda rng, size: rng.integers(2, size=size).astype(float))


def labels(classes: int, *shape: int) -> Bottom:
    return Bottom(lambda rng, size: rng.integers(classes, size=size).astype(float), shape)


@dataclass(frozen=True)
class Case:
    """A row.

    Attributes:
        id: the layer's class, and what is special about the row.
        layer: makes the layer, which is called "y".
        bottoms: blob name -> what it holds.  Several without a shape share a random one.
        reference: (params, *bottoms) -> list of tops, in plain Python, math and scipy; params maps
            "weight" and so on to arrays.  A random layer's takes its noise as `noise=`.
        jax: (jax, params, *bottoms) -> the top, or a tuple of them.
        kinks: values that the bottoms keep clear of.
        noise: "normal" or "uniform", what the layer draws.
        phase: of the net.
        weight: of a loss layer.
        kernels: "array" or "auto".
        plain: False where a setting is one that CUDA's kernels refuse, so that array code runs.
        beside: makes the layers whose parameters it uses.
    """

    id: str
    layer: Callable[[], lk.Layer]
    bottoms: dict[str, Bottom]
    reference: Callable[..., list[np.ndarray]]
    jax: Callable[..., Any]
    kinks: Sequence[float] = ()
    noise: str | None = None
    phase: str = "train"
    weight: float = 1.0
    kernels: str = "array"
    plain: bool = True
    beside: Callable[[], list[lk.Layer]] = list

    @property
    def has_kernels(self) -> bool:
        """Tell whether the layer is more than its array code."""
        return type(self.layer()) in RUNNERS

    @property
    def has_cuda(self) -> bool:
        """Tell whether the layer is more than its array code on a GPU."""
        return self.plain and (type(self.layer()) in CUDA_RUNNERS or self.layer().is_source)

    @property
    def arguments(self) -> list[str]:
        """The blobs that `reference` and `jax` take, in order."""
        return self.layer().bottoms or list(self.bottoms)

    def draw(self, rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        """Arrays (rows, ...) for the bottoms, clear of the kinks."""
        # At least eight numbers: whatever depends on their sign is seen on both sides of zero.
        shared = (*rng.integers(1, 4, size=rng.integers(3)), 8 // rows + rng.integers(1, 4))
        shared = tuple(int(n) for n in shared)
        arrays = {}
        for name, bottom in self.bottoms.items():
            shape = shared if bottom.shape is None else bottom.shape
            array = bottom.draw(rng, (rows, *shape))
            for kink in self.kinks:
                away = np.where(array < kink, kink - 0.05, kink + 0.05)
                array = np.where(np.abs(array - kink) < 0.05, away, array)
            arrays[name] = array
        return arrays

    def net(
        self, rng: np.random.Generator, arrays: dict[str, np.ndarray], **settings: Any
    ) -> lk.Net:
        """The layer in a float64 net in which everything has a diff."""
        layer = self.layer()
        inputs = [
            L.Input(name, shape=array.shape[1:])
            for name, array in arrays.items()
            if name not in layer.tops
        ]
        rows = len(next(iter(arrays.values()))) if arrays else 5
        defaults = {
            "batch_size": rows,
            "dtype": "float64",
            "seed": int(rng.integers(2**40)),
            "phase": self.phase,
            "gradients": "all",
            "kernels": self.kernels,
        }
        return lk.Net([*inputs, *self.beside(), layer], **{**defaults, **settings})

    def expected(self, net: lk.Net, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The tops by the reference, for the net's last forward pass."""
        layer: Any = net.layers["y"]
        params = {name: p.data for name, p in layer.parameters.items()}
        tops = self.reference(params, *(arrays[a] for a in self.arguments), **self.drawn(net))
        if layer.is_source:  # which goes round its examples, and has served these last
            rows = len(net.blobs["y"].data)
            served = np.arange(layer.position - rows, layer.position)
            tops = [top[served % len(top)] for top in tops]
        return tops

    def drawn(self, net: lk.Net) -> dict[str, np.ndarray]:
        """The noise of the net's last forward pass, as a keyword argument."""
        if self.noise is None:
            return {}
        shape = net.blobs["y"].data.shape
        draw = getattr(philox, self.noise)
        return {"noise": draw(np, shape, net.run.seed, philox.stream_of("y"), net.run.passes)}


# References.


def each(function: Callable[..., float]) -> Callable[..., list[np.ndarray]]:
    """A reference that applies a function of numbers to element after element."""

    def reference(params: dict[str, np.ndarray], *bottoms: np.ndarray, **noise: np.ndarray):
        columns = [array.ravel().tolist() for array in (*bottoms, *noise.values())]
        values = [function(*numbers) for numbers in zip(*columns, strict=True)]
        return [np.array(values).reshape(bottoms[0].shape)]

    return reference


def summed(function: Callable[..., float]) -> Callable[..., list[np.ndarray]]:
    """A reference that sums a function of numbers over each example."""

    def reference(params: dict[str, np.ndarray], *bottoms: np.ndarray):
        terms = each(function)(params, *bottoms)[0]
        return [np.array([math.fsum(row.flat) for row in terms])]

    return reference


def dense(activation: Callable[[float], float]) -> Callable[..., list[np.ndarray]]:
    """The reference for Dense: sums of products, one by one."""

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        weight = params["weight"]
        bias = params.get("bias", np.zeros(weight.shape[1]))
        y = np.empty((len(x), len(bias)))
        for row, example in enumerate(x):
            for unit in range(len(bias)):
                terms = [float(v) * w for v, w in zip(example.flat, weight[:, unit], strict=True)]
                y[row, unit] = activation(math.fsum(terms) + bias[unit])
        return [y]

    return reference


def two(value: int | Sequence[int]) -> tuple[int, int]:
    """A setting of windows for rows and columns."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def with_gaps(pictures: np.ndarray, apart: int | Sequence[int]) -> np.ndarray:
    """Pictures (..., height, width) with zeros between their pixels."""
    down, across = two(apart)
    height, width = pictures.shape[-2:]
    shape = (*pictures.shape[:-2], (height - 1) * down + 1, (width - 1) * across + 1)
    found = np.zeros(shape)
    found[..., ::down, ::across] = pictures
    return found


def tied_dense(activation: Callable[[float], float]) -> Callable[..., list[np.ndarray]]:
    """The reference for TiedDense: that of Dense, of the other layer's weight turned round."""

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        rows, columns = params["weight"].shape
        turned = np.array([[params["weight"][i, j] for i in range(rows)] for j in range(columns)])
        return dense(activation)({**params, "weight": turned}, x)

    return reference


def convolution(
    stride: int | Sequence[int] = 1,
    pad: int | Sequence[int] = 0,
    activation: Callable[[Any], Any] = lambda x: x,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Callable[..., list[np.ndarray]]:
    """The reference for Convolution: scipy's correlation, at every stride-th place."""

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        (p, q), (s, t) = two(pad), two(stride)
        weight = with_gaps(params["weight"].transpose(3, 2, 0, 1), dilation)
        padded = np.pad(x, [(0, 0), (0, 0), (p, p), (q, q)])
        channels, each = len(weight), x.shape[1] // groups
        bias = params.get("bias", np.zeros(channels))
        tops = []
        for example in padded:
            for o in range(channels):
                first = o // (channels // groups) * each
                found = sum(
                    signal.correlate2d(example[first + c], weight[o, c], "valid")
                    for c in range(each)
                )
                tops.append(activation(bias[o] + found[::s, ::t]))
        return [np.array(tops).reshape(len(x), channels, *tops[0].shape)]

    return reference


def deconvolution(
    shape: Shape,
    stride: int | Sequence[int] = 1,
    pad: int | Sequence[int] = 0,
    activation: Callable[[Any], Any] = lambda x: x,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Callable[..., list[np.ndarray]]:
    """The reference for Deconvolution: scipy's convolution of pictures with gaps between pixels."""

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        p, q = two(pad)
        window = np.s_[p : p + shape[0], q : q + shape[1]]
        room = [(0, p + shape[0]), (0, q + shape[1])]
        weight = with_gaps(params["weight"].transpose(0, 3, 1, 2), dilation)
        inputs, each = weight.shape[:2]
        bias = params.get("bias", np.zeros(each * groups))
        tops = []
        for example in with_gaps(x, stride):
            for o in range(each * groups):
                first = o // each * (inputs // groups)
                found = sum(
                    signal.convolve2d(example[c], weight[c, o % each])
                    for c in range(first, first + inputs // groups)
                )
                tops.append(activation(bias[o] + np.pad(found, room)[window]))
        return [np.array(tops).reshape(len(x), each * groups, *shape)]

    return reference


def of_lines(reference: Callable[..., list[np.ndarray]], axis: int) -> Callable[..., Any]:
    """A reference for lines of pixels: that for pictures of height 1.

    Args:
        axis: of the weight, where the rows of a window are put.
    """

    def line_reference(params: dict[str, np.ndarray], x: np.ndarray):
        params = {k: np.expand_dims(p, axis) if p.ndim > 1 else p for k, p in params.items()}
        return [top[:, :, 0] for top in reference(params, x[:, :, None])]

    return line_reference


def pooling(
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    pad: int | Sequence[int] = 0,
    mode: str = "max",
    ceil: bool = False,
) -> Callable[..., list[np.ndarray]]:
    """The reference for Pooling: each window by itself."""

    def ranges(size: int, axis: int) -> list[tuple[int, int]]:
        """Bounds of each window in pixels of the picture, up to its pad on either side."""
        k, s, p = two(kernel)[axis], two(stride)[axis], two(pad)[axis]
        found, start = [], -p
        while start + k <= size + p or (ceil and start < size and start - s + k < size + p):
            found.append((start, min(start + k, size + p)))
            start += s
        return found

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        shape = x.shape
        x = x if x.ndim == 4 else x[:, :, None]  # lines of pixels
        rows = [(0, 1)] if len(shape) == 3 else ranges(shape[2], 0)
        columns = ranges(shape[-1], 1)
        y = np.empty((*shape[:2], len(rows), len(columns)))
        for *at, i, j in np.ndindex(y.shape):
            (top, bottom), (left, right) = rows[i], columns[j]
            pixels = x[tuple(at)][max(top, 0) : bottom, max(left, 0) : right].ravel().tolist()
            area = (bottom - top) * (right - left)
            y[(*at, i, j)] = max(pixels) if mode == "max" else math.fsum(pixels) / area
        return [y if len(shape) == 4 else y[:, :, 0]]

    return reference


def global_pooling(mode: str) -> Callable[..., list[np.ndarray]]:
    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        planes = [[plane.ravel().tolist() for plane in example] for example in x]
        best = max if mode == "max" else lambda plane: math.fsum(plane) / len(plane)
        return [np.array([[best(plane) for plane in example] for example in planes])]

    return reference


def signs(*shape: int) -> Bottom:
    return Bottom(lambda rng, size: rng.choice([-1.0, 1.0], size), shape)


def clear_of(magnitude: float, *shape: int) -> Bottom:
    """Normal numbers whose magnitudes are not close to one at which there is a kink."""

    def draw(rng: np.random.Generator, size: Shape) -> np.ndarray:
        x = rng.standard_normal(size)
        return np.where(abs(abs(x) - magnitude) < 0.05, x + 0.1 * np.sign(x), x)

    return Bottom(draw, shape)


def hinge(margin: float, power: int) -> Callable[..., list[np.ndarray]]:
    def reference(params: dict[str, np.ndarray], scores: np.ndarray, label: np.ndarray):
        losses = []
        for row, t in zip(scores.reshape(len(scores), -1), label, strict=True):
            given = np.ravel(t).tolist()
            if len(given) != len(row):
                given = [1 if k == given[0] else -1 for k in range(len(row))]
            terms = [max(0.0, margin - t * x) ** power for x, t in zip(row, given, strict=True)]
            losses.append(math.fsum(terms))
        return [np.array(losses)]

    return reference


def jax_hinge(margin: float, power: int) -> Callable[..., Any]:
    def function(jax: Any, params: Any, scores: Any, label: Any) -> Any:
        t = label.reshape(len(label), -1)
        scores = scores.reshape(len(scores), -1)
        if t.shape != scores.shape:
            t = 2 * jax.nn.one_hot(t[:, 0].astype(int), scores.shape[1]) - 1
        return (jax.nn.relu(margin - t * scores) ** power).sum(1)

    return function


def contrastive(margin: float) -> Callable[..., list[np.ndarray]]:
    def reference(params: Any, a: np.ndarray, b: np.ndarray, similar: np.ndarray):
        losses = []
        for p, q, s in zip(a, b, similar.ravel(), strict=True):
            d = math.dist(p.ravel(), q.ravel())
            losses.append(d * d / 2 if s else max(0.0, margin - d) ** 2 / 2)
        return [np.array(losses)]

    return reference


def jax_contrastive(margin: float) -> Callable[..., Any]:
    def function(jax: Any, params: Any, a: Any, b: Any, similar: Any) -> Any:
        d = jax.numpy.linalg.norm((a - b).reshape(len(a), -1), axis=1)
        s = similar.reshape(-1)
        return (s * d**2 + (1 - s) * jax.nn.relu(margin - d) ** 2) / 2

    return function


def accuracy(top: int) -> Callable[..., list[np.ndarray]]:
    """The reference for Accuracy: sort the guesses."""

    def reference(params: dict[str, np.ndarray], logits: np.ndarray, label: np.ndarray):
        hits = []
        for row, right in zip(logits, label.flat, strict=True):
            guesses = sorted(range(row.size), key=lambda k: -row.flat[k])[:top]
            hits.append(float(int(right) in guesses))
        return [np.array(hits)]

    return reference


def labels_or(ignored: float, classes: int, *shape: int) -> Bottom:
    """Labels, of which about a third are to be ignored."""

    def draw(rng: np.random.Generator, size: Shape) -> np.ndarray:
        named = rng.integers(classes, size=size).astype(float)
        return np.where(rng.random(size) < 0.3, ignored, named)

    return Bottom(draw, shape)


def distributions(axis: int, *shape: int) -> Bottom:
    """Probabilities along an axis, the batch axis counted."""

    def draw(rng: np.random.Generator, size: Shape) -> np.ndarray:
        return special.softmax(rng.standard_normal(size), axis=axis)

    return Bottom(draw, shape)


def softmax_along(
    axis: int,
    ignore: int | None = None,
    weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
) -> Callable[..., list[np.ndarray]]:
    """The reference for SoftmaxLoss, place by place; `axis` counts the batch axis."""

    def reference(
        params: dict[str, np.ndarray],
        logits: np.ndarray,
        label: np.ndarray,
        importance: np.ndarray | None = None,
    ):
        z, classes, soft = np.moveaxis(logits, axis, -1), logits.shape[axis], None
        if label.shape == logits.shape:
            soft = np.moveaxis(label, axis, -1)
        losses = np.zeros(len(logits))
        for place in np.ndindex(*z.shape[:-1]):
            if soft is None:
                named = label.reshape(z.shape[:-1])[place]
                if named == ignore:
                    continue
                given = [float(k == named) for k in range(classes)]
            else:
                given = soft[place].tolist()
            total = special.logsumexp(z[place])
            for k in range(classes):
                q = (1 - smoothing) * given[k] + smoothing / classes
                term = (1.0 if weights is None else weights[k]) * q * (total - z[place][k])
                if importance is not None:
                    by_place = importance.size == math.prod(z.shape[:-1])
                    term *= (
                        importance.reshape(z.shape[:-1])[place]
                        if by_place
                        else (importance.reshape(-1)[place[0]])
                    )
                losses[place[0]] += term
        return [losses]

    return reference


def jax_softmax_along(
    axis: int,
    ignore: int | None = None,
    weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
) -> Callable[..., Any]:
    def function(jax: Any, params: Any, logits: Any, label: Any, importance: Any = None) -> Any:
        classes, counts = logits.shape[axis], 1.0
        log_p = jax.numpy.moveaxis(jax.nn.log_softmax(logits, axis), axis, -1)
        if label.shape == logits.shape:
            q = jax.numpy.moveaxis(label, axis, -1)
        else:
            label = label.reshape(log_p.shape[:-1])
            q = jax.nn.one_hot(label.astype(int), classes)
            counts = (label != (-9 if ignore is None else ignore))[..., None]
        q = (q * (1 - smoothing) + smoothing / classes) * counts
        q = q if weights is None else q * jax.numpy.array(weights)
        terms = -(q * log_p).sum(-1)
        if importance is not None:
            spread = [1] * (terms.ndim - 1) if importance.size != terms.size else terms.shape[1:]
            terms = terms * importance.reshape(-1, *spread)
        return terms.reshape(len(terms), -1).sum(1)

    return function


def accuracy_along(axis: int, top: int, ignore: int) -> Callable[..., list[np.ndarray]]:
    """The reference for Accuracy along an axis, the batch axis counted."""

    def reference(params: dict[str, np.ndarray], logits: np.ndarray, label: np.ndarray):
        z = np.moveaxis(logits, axis, -1)
        label, hits, counted = label.reshape(z.shape[:-1]), np.zeros(len(z)), 0
        for place in np.ndindex(*label.shape):
            if label[place] != ignore:
                counted += 1
                hits[place[0]] += label[place] in np.argsort(-z[place])[:top]
        return [hits / (counted / len(z))]

    return reference


def jax_accuracy_along(axis: int, top: int, ignore: int) -> Callable[..., Any]:
    def function(jax: Any, params: Any, logits: Any, label: Any) -> Any:
        z = jax.numpy.moveaxis(logits, axis, -1)
        label = label.reshape(z.shape[:-1])
        right = (jax.lax.top_k(z, top)[1] == label[..., None]).any(-1) & (label != ignore)
        counted = (label != ignore).sum() / len(z)
        return right.reshape(len(z), -1).sum(1) / counted

    return function


def softmax_loss(params: dict[str, np.ndarray], logits: np.ndarray, label: np.ndarray):
    return [
        np.array(
            [
                special.logsumexp(row) - row.flat[int(right)]
                for row, right in zip(logits, label.flat, strict=True)
            ]
        )
    ]


def repeated(*bottoms: np.ndarray) -> list[np.ndarray]:
    """Bottoms whose axes of size 1 are repeated, element by element, to the size of the others."""
    shape = [max(along) for along in zip(*(b.shape for b in bottoms), strict=True)]
    return [
        np.array(
            [
                b[tuple(0 if size == 1 else i for i, size in zip(place, b.shape, strict=True))]
                for place in np.ndindex(*shape)
            ]
        ).reshape(shape)
        for b in bottoms
    ]


def affine(axis: int) -> Callable[..., list[np.ndarray]]:
    """The reference for Affine, number by number; `axis` counts the batch axis."""

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        y = np.empty_like(x)
        for place in np.ndindex(*x.shape):
            gain = params["gain"][place[axis]] if "gain" in params else 1.0
            bias = params["bias"][place[axis]] if "bias" in params else 0.0
            y[place] = gain * x[place] + bias
        return [y]

    return reference


def jax_affine(axis: int) -> Callable[..., Any]:
    def function(jax: Any, params: Any, x: Any) -> Any:
        y = jax.numpy.moveaxis(x, axis, -1)
        y = y * params.get("gain", 1.0) + params.get("bias", 0.0)
        return jax.numpy.moveaxis(y, -1, axis)

    return function


def reduced(mode: str, axes: Sequence[int], keep: bool) -> Callable[..., list[np.ndarray]]:
    """The reference for Reduce; `axes` count the batch axis."""
    function = {"sum": math.fsum, "mean": statistics.fmean, "max": max}[mode]

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        y = np.empty(shape)
        for place in np.ndindex(*shape):
            index = tuple(slice(None) if a in axes else i for a, i in enumerate(place))
            y[place] = function(x[index].ravel().tolist())
        return [y if keep else y.reshape([s for a, s in enumerate(shape) if a not in axes])]

    return reference


def products(params: dict[str, np.ndarray], a: np.ndarray, b: np.ndarray):
    """The reference for MatMul: sums of products, one by one."""
    y = np.empty((*a.shape[:-1], b.shape[-1]))
    for place in np.ndindex(*y.shape):
        row, column = a[place[:-1]], b[place[:-2]][:, place[-1]]
        y[place] = math.fsum(p * q for p, q in zip(row.tolist(), column.tolist(), strict=True))
    return [y]


def turned(array: Any, transposed: bool) -> Any:
    return array.swapaxes(-1, -2) if transposed else array


def matmul_cases() -> list[Case]:
    return [
        Case(
            f"MatMul{label}",
            lambda settings=settings: L.MatMul("y", "a", "b", **settings),
            {"a": normal(*a), "b": normal(*b)},
            lambda params, a, b, ta=ta, tb=tb: products(params, turned(a, ta), turned(b, tb)),
            lambda jax, params, a, b, ta=ta, tb=tb: jax.numpy.einsum(
                "...ik,...kj->...ij", turned(a, ta), turned(b, tb)
            ),
        )
        for label, a, b, ta, tb, settings in (
            ("", (2, 3), (3, 4), False, False, {}),
            ("-turned", (3, 2), (3, 4), True, False, {"transpose_a": True}),
            ("-rows", (2, 2, 3), (2, 4, 3), False, True, {"transpose_b": True}),
            ("-both", (3, 2), (4, 3), True, True, {"transpose_a": True, "transpose_b": True}),
        )
    ]


def expit(x: float) -> float:
    return float(special.expit(x))


def weighted(x: Sequence[float], matrix: np.ndarray, column: int) -> float:
    return math.fsum(v * w for v, w in zip(x, matrix[:, column].tolist(), strict=True))


def recurrent(kind: str, units: int, last: bool, reverse: bool, forget: float = 0.0):
    """The reference for LSTM and GRU: unit by unit, step by step."""

    def lstm(w: Any, u: Any, b: Any, x: list[float], h: list[float], c: list[float]) -> None:
        def enters(gate: int, k: int) -> float:
            column = gate * units + k
            return weighted(x, w, column) + weighted(before, u, column) + b[column]

        before = list(h)
        for k in range(units):
            i, f, g, o = (enters(gate, k) for gate in range(4))
            c[k] = expit(f + forget) * c[k] + expit(i) * math.tanh(g)
            h[k] = expit(o) * math.tanh(c[k])

    def gru(w: Any, u: Any, b: Any, x: list[float], h: list[float], c: list[float]) -> None:
        before = list(h)
        for k in range(units):
            (rx, zx, nx), (rh, zh, nh) = (
                [weighted(a, m, gate * units + k) for gate in range(3)]
                for a, m in ((x, w), (before, u))
            )
            r, z = expit(rx + rh + b[k]), expit(zx + zh + b[units + k])
            m = math.tanh(nx + b[2 * units + k] + r * nh)
            h[k] = (1 - z) * m + z * before[k]

    step = {"LSTM": lstm, "GRU": gru}[kind]

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        y = np.empty((*x.shape[:2], units))
        arrays = (params["weight"], params["recurrent"], params["bias"].tolist())
        for row, example in enumerate(x):
            h, c = [0.0] * units, [0.0] * units
            order = range(len(example))
            for t in reversed(order) if reverse else order:
                step(*arrays, example[t].tolist(), h, c)
                y[row, t] = h
        return [y[:, 0 if reverse else -1] if last else y]

    return reference


def jax_recurrent(kind: str, units: int, last: bool, reverse: bool, forget: float = 0.0):
    def function(jax: Any, params: Any, x: Any) -> Any:
        def lstm(state: Any, x: Any) -> Any:
            h, c = state
            enters = x @ params["weight"] + h @ params["recurrent"] + params["bias"]
            i, f, g, o = jax.numpy.split(enters, 4, axis=-1)
            c = jax.nn.sigmoid(f + forget) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
            h = jax.nn.sigmoid(o) * jax.numpy.tanh(c)
            return (h, c), h

        def gru(state: Any, x: Any) -> Any:
            h, c = state
            r, z, n = jax.numpy.split(x @ params["weight"] + params["bias"], 3, axis=-1)
            hr, hz, hn = jax.numpy.split(h @ params["recurrent"], 3, axis=-1)
            m = jax.numpy.tanh(n + jax.nn.sigmoid(r + hr) * hn)
            z = jax.nn.sigmoid(z + hz)
            h = (1 - z) * m + z * h
            return (h, c), h

        zeros = jax.numpy.zeros((len(x), units))
        step = {"LSTM": lstm, "GRU": gru}[kind]
        (h, _), y = jax.lax.scan(step, (zeros, zeros), x.swapaxes(0, 1), reverse=reverse)
        return h if last else y.swapaxes(0, 1)

    return function


def recurrent_cases() -> list[Case]:
    return [
        Case(
            f"{kind}{label}",
            lambda kind=kind, settings=settings: getattr(L, kind)(
                "y", "x", units=3, bias=BIAS, **settings
            ),
            {"x": normal(*shape)},
            recurrent(kind, 3, **how),
            jax_recurrent(kind, 3, **how),
        )
        for kind, label, shape, settings, how in (
            ("LSTM", "", (4, 2), {}, {"last": False, "reverse": False, "forget": 1.0}),
            (
                "LSTM",
                "-last",
                (3, 2),
                {"last": True, "forget": 0.3, "l2": 0.2},
                {"last": True, "reverse": False, "forget": 0.3},
            ),
            (
                "LSTM",
                "-reverse",
                (3, 4),
                {"reverse": True, "forget": 0},
                {"last": False, "reverse": True},
            ),
            ("GRU", "", (4, 2), {}, {"last": False, "reverse": False}),
            (
                "GRU",
                "-reverse-last",
                (3, 2),
                {"last": True, "reverse": True},
                {"last": True, "reverse": True},
            ),
            ("GRU", "-one-step", (1, 5), {}, {"last": False, "reverse": False}),
        )
    ]


def prelu(params: dict[str, np.ndarray], x: np.ndarray):
    slope = params["slope"]
    y = np.empty_like(x)
    for place in np.ndindex(*x.shape):
        y[place] = x[place] if x[place] > 0 else slope[place[1]] * x[place]
    return [y]


def before_prelu(layer: Callable[..., list[np.ndarray]]) -> Callable[..., list[np.ndarray]]:
    """The reference for a layer with the activation "prelu", given that for one without any."""
    return lambda params, x: prelu(params, layer(params, x)[0])


def jax_before_prelu(layer: Callable[..., Any]) -> Callable[..., Any]:
    return lambda jax, params, x: jax_prelu(jax, params, layer(jax, params, x))


def jax_prelu(jax: Any, params: Any, x: Any) -> Any:
    slope = params["slope"].reshape(-1, *[1] * (x.ndim - 2))
    return jax.numpy.maximum(x, 0) - slope * jax.numpy.maximum(-x, 0)


def concat(params: dict[str, np.ndarray], *bottoms: np.ndarray):
    examples = zip(*(bottom.tolist() for bottom in bottoms), strict=True)
    return [np.array([[piece for pieces in example for piece in pieces] for example in examples])]


def slices(*sizes: int) -> Callable[..., list[np.ndarray]]:
    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        rest = [list(example) for example in x]
        return [np.array([[r.pop(0) for _ in range(size)] for r in rest]) for size in sizes]

    return reference


def kl(
    mean: float, log_variance: float, prior_mean: float = 0.0, prior_log_variance: float = 0.0
) -> float:
    """E_q[log q - log p] by quadrature, which is exact for this quadratic."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    sd = math.exp(log_variance / 2)
    z = mean + sd * nodes
    logs = stats.norm.logpdf(z, mean, sd)
    logs -= stats.norm.logpdf(z, prior_mean, math.exp(prior_log_variance / 2))
    return float((weights / weights.sum() * logs).sum())


def gaussian_nll(floor: float) -> Callable[[float, float, float], float]:
    return lambda x, mean, log_variance: (
        -stats.norm.logpdf(x, mean, math.sqrt(math.exp(log_variance) + floor))
    )


@functools.cache
def half_moment(degrees: float, power: int) -> float:
    """The mean of |T|^power, by quadrature over the angle whose tangent is T."""
    return (
        2
        * integrate.quad(
            lambda a: math.tan(a) ** power * stats.t.pdf(math.tan(a), degrees) / math.cos(a) ** 2,
            0,
            math.pi / 2,
            epsabs=0,
            epsrel=1e-11,
            limit=400,
        )[0]
    )


def skewed_student(degrees: float, skew: float) -> tuple[Callable[[float], float], float, float]:
    """Fernandez and Steel's density of Student's t made skew, its mean and its sd (their eq. 5)."""
    g = math.exp(skew)

    def density(y: float) -> float:
        return 2 / (g + 1 / g) * stats.t.pdf(y / g if y > 0 else y * g, degrees)

    first, second = (
        half_moment(degrees, r) * (g ** (r + 1) + (-1) ** r / g ** (r + 1)) / (g + 1 / g)
        for r in (1, 2)
    )
    return density, first, math.sqrt(second - first * first)


def student_nll(degrees: float, floor: float) -> Callable[..., float]:
    def nll(x: float, mean: float, log_variance: float, skew: float = 0.0) -> float:
        density, own_mean, own_sd = skewed_student(degrees, skew)
        sd = math.sqrt(math.exp(log_variance) + floor)
        return -math.log(density(own_mean + own_sd * (x - mean) / sd) * own_sd / sd)

    return nll


def places(
    u: np.ndarray, side: int, inverse: bool, turns: float, size_spread: float, shift_spread: float
) -> np.ndarray:
    """Rows and columns (2, side * side) at which a SpatialTransform of pose u reads its picture."""
    u = np.r_[u, np.zeros(4 - len(u))]
    angle = 2 * np.pi * turns * (stats.norm.cdf(u[0]) - 0.5)
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.exp(size_spread * u[1]) * np.array([[c, -s], [s, c]])
    shift = shift_spread * np.array([[u[2]], [u[3]]])
    y, x = np.mgrid[:side, :side].reshape(2, -1) - (side - 1) / 2
    pixels = np.array([x, y])
    found = matrix @ pixels + shift if inverse else np.linalg.solve(matrix, pixels - shift)
    return found[::-1] + (side - 1) / 2


def clear_poses(numbers: int, side: int, **settings: Any) -> Bottom:
    """Poses that read no picture close to a row or column, where the slope jumps."""

    def draw(rng: np.random.Generator, size: Shape) -> np.ndarray:
        poses = np.empty(size)
        for row in range(size[0]):
            while True:
                poses[row] = rng.standard_normal(size[1:])
                found = places(poses[row], side, **settings)
                if np.abs(found - np.rint(found)).min() > 3e-3:
                    break
        return poses

    return Bottom(draw, (numbers,))


def resampled(side: int, **settings: Any) -> Callable[..., list[np.ndarray]]:
    """The reference for SpatialTransform."""

    def reference(params: dict[str, np.ndarray], pictures: np.ndarray, poses: np.ndarray):
        return [
            np.array(
                [
                    ndimage.map_coordinates(
                        picture.reshape(side, side),
                        places(u, side, **settings),
                        order=1,
                        mode="nearest",
                    ).reshape(picture.shape)
                    for picture, u in zip(pictures, poses, strict=True)
                ]
            )
        ]

    return reference


def galaxies(side: int) -> Bottom:
    """Noisy elliptical Gaussians, one end of which is brighter, over some sky."""

    def draw(rng: np.random.Generator, size: Shape) -> np.ndarray:
        images = np.empty((size[0], side, side))
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        for image in images:
            angle, (dx, dy) = rng.uniform(0, 2 * np.pi), rng.normal(scale=0.02 * side, size=2)
            along = (x - dx) * np.cos(angle) + (y - dy) * np.sin(angle)
            across = (y - dy) * np.cos(angle) - (x - dx) * np.sin(angle)
            major = side * rng.uniform(0.1, 0.15)
            light = np.exp(-0.5 * ((along / major) ** 2 + (2 * across / major) ** 2))
            lopsided = 1 + 0.5 * np.tanh(along / major)
            image[...] = rng.normal(rng.uniform(-1, 1), 0.01, (side, side)) + light * lopsided
        return images.reshape(size)

    return Bottom(draw, (side * side,))


def moments(
    xp: Any,
    quantile: Callable[..., Any],
    image: Any,
    side: int,
    size: float,
    threshold: float,
    turns: float,
    size_spread: float,
    shift_spread: float,
) -> Any:
    """ImagePose of one picture, by sums over its pixels; xp is NumPy or JAX's."""
    image = image.reshape(side, side)
    inner = np.zeros((side, side), bool)
    inner[1:-1, 1:-1] = True
    frame = image[~inner]
    sky = xp.median(frame)
    light = image - sky - threshold * xp.median(xp.abs(frame - sky))
    light = xp.where(light > 0, light, 0)
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    x, y, spread = 0.0, 0.0, size
    for _ in range(5):
        weight = light * xp.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (8 * spread**2))
        # The rest up to `total` draws the centre to that of the window, and the shape to that of a
        # round object of the standard size.
        total, rest = weight.sum() + 1e-3, 1e-3 * size**2
        from_x = columns - (weight * columns).sum() / weight.sum()
        from_y = rows - (weight * rows).sum() / weight.sum()
        xx = ((weight * from_x**2).sum() + rest) / total
        yy = ((weight * from_y**2).sum() + rest) / total
        xy = (weight * from_x * from_y).sum() / total
        x = x + (weight * (columns - x)).sum() / total
        y = y + (weight * (rows - y)).sum() / total
        spread = xp.sqrt((xx + yy) / 2)
    angle = xp.arctan2(2 * xy, xx - yy) / 2
    if turns == 1:  # the end to which the third moment leans
        along = (columns - x) * xp.cos(angle) + (rows - y) * xp.sin(angle)
        third = (weight * (along - (weight * along).sum() / weight.sum()) ** 3).sum()
        angle = xp.where(third < 0, angle + xp.pi, angle)
        angle = xp.where(angle > xp.pi, angle - 2 * xp.pi, angle)
    u = xp.stack(
        [
            quantile(angle / (2 * np.pi * turns) + 0.5),
            xp.log(spread / size) / size_spread,
            x / shift_spread,
            y / shift_spread,
        ]
    )
    return xp.clip(u, -3, 3)


def measured(latents: int, **settings: Any) -> Callable[..., list[np.ndarray]]:
    """The reference for ImagePose."""
    return lambda params, images: [
        np.array([moments(np, stats.norm.ppf, image, **settings)[:latents] for image in images])
    ]


def masks(*shape: int) -> Bottom:
    """Numbers of which about a third are 0, the others 1 or a weight."""
    return Bottom(lambda rng, size: rng.choice([0.0, 1.0, 0.4], size), shape)


def between(low: float, high: float, *shape: int) -> Bottom:
    return Bottom(lambda rng, size: rng.uniform(low, high, size), shape)


def masked_sum(function: Callable[..., float]) -> Callable[..., list[np.ndarray]]:
    """A reference that sums a function of numbers over the pixels of an example, times a mask."""

    def reference(params: dict[str, np.ndarray], *bottoms: np.ndarray):
        *values, mask = repeated(*bottoms)
        terms = each(function)(params, *values)[0]
        return [np.array([math.fsum(row.flat) for row in terms * mask])]

    return reference


def with_bands(pictures: np.ndarray, picture_axes: int = 2) -> np.ndarray:
    """Pictures (n, h, w) as (n, 1, h, w), others as they are."""
    return pictures[:, None] if pictures.ndim == picture_axes + 1 else pictures


def blurred(params: dict[str, np.ndarray], pictures: np.ndarray, psfs: np.ndarray):
    """The reference for ConvolvePSF: SciPy's convolution, cut from the PSF's middle on."""
    flat = pictures.ndim == psfs.ndim == 3
    pictures, psfs = with_bands(pictures), with_bands(psfs)
    (height, width), middle = pictures.shape[2:], [size // 2 for size in psfs.shape[2:]]
    tops = []
    for example, own in zip(pictures, psfs, strict=True):
        for band in range(max(len(example), len(own))):
            full = signal.convolve2d(example[band % len(example)], own[band % len(own)])
            tops.append(full[middle[0] :, middle[1] :][:height, :width])
    y = np.array(tops).reshape(len(pictures), -1, height, width)
    return [y[:, 0] if flat else y]


def jax_blurred(jax: Any, params: Any, pictures: Any, psfs: Any) -> Any:
    flat = pictures.ndim == psfs.ndim == 3
    pictures, psfs = with_bands(pictures), with_bands(psfs)
    bands = max(pictures.shape[1], psfs.shape[1])
    pictures, psfs = (
        jax.numpy.broadcast_to(a, (len(a), bands, *a.shape[2:])).reshape(-1, *a.shape[2:])
        for a in (pictures, psfs)
    )
    top, left = (size // 2 for size in psfs.shape[1:])
    full = jax.vmap(lambda x, k: jax.scipy.signal.convolve(x, k, method="direct"))(pictures, psfs)
    y = full[:, top : top + pictures.shape[1], left : left + pictures.shape[2]]
    return y if flat else y.reshape(-1, bands, *y.shape[1:])


def normalised(axes: tuple[int, ...]) -> Callable[..., list[np.ndarray]]:
    """The reference for Normalise; `axes` count the batch axis."""

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        totals = reduced("sum", axes, True)(params, x)[0]
        return each(lambda value, total: value / total)(params, *repeated(x, totals))

    return reference


@functools.cache
def tap_polynomials() -> np.ndarray:
    """Coefficients (10, 6) of f^0 .. f^5 in the weights of pixels -4..5 for a place f from 0 to 1.

    Each is the quintic through the value, slope and curvature that the polynomials through nine
    pixels have in the middle of them, at 0 and at 1.
    """
    nodes, found = np.arange(-4, 6), []
    for tap in range(10):
        pixels = (nodes == nodes[tap]).astype(float)
        ends = [
            [fit.derivative(end, k) for k in range(3)]
            for end in (0, 1)
            for fit in [interpolate.KroghInterpolator(nodes[end : end + 9], pixels[end : end + 9])]
        ]
        pieces = interpolate.PPoly.from_bernstein_basis(
            interpolate.BPoly.from_derivatives([0, 1], ends)
        )
        found.append(pieces.c[::-1, 0])
    return np.array(found)


def shared_out(place: float) -> dict[int, float]:
    """The weights of the pixels around a place on a line."""
    cell = math.floor(place)
    return {
        cell - 4 + tap: math.fsum(c * (place - cell) ** p for p, c in enumerate(row))
        for tap, row in enumerate(tap_polynomials().tolist())
    }


def placed(height: int, width: int) -> Callable[..., list[np.ndarray]]:
    """The reference for PlaceSources: pixel by pixel of each picture."""

    def reference(params: Any, pictures: Any, places: np.ndarray, fluxes: Any = None):
        while pictures.ndim < 5:  # (n, sources, bands, h, w)
            pictures = pictures[:, None] if pictures.ndim == 3 else pictures[:, :, None]
        n, sources, colours, h, w = pictures.shape
        bands = colours if fluxes is None else fluxes.size // (n * sources)
        fluxes = np.ones((n, sources, bands)) if fluxes is None else fluxes.reshape(n, sources, -1)
        y = np.zeros((n, bands, height, width))
        for row, s, i, j in np.ndindex(n, sources, h, w):
            x_place, y_place = places.reshape(n, sources, 2)[row, s]
            for r, down in shared_out(y_place + i - (h - 1) / 2).items():
                for c, across in shared_out(x_place + j - (w - 1) / 2).items():
                    if 0 <= r < height and 0 <= c < width:
                        y[row, :, r, c] += (
                            down * across * fluxes[row, s] * pictures[row, s, :, i, j]
                        )
        return [y]

    return reference


def cut_out(height: int, width: int) -> Callable[..., list[np.ndarray]]:
    """The reference for CutSources: pixel by pixel of each picture."""

    def reference(params: Any, canvas: np.ndarray, places: np.ndarray):
        n, *bands = canvas.shape[:-2]
        sources = places.shape[1:-1]
        y = np.zeros((n, *sources, *bands, height, width))
        for row, *s, i, j in np.ndindex(n, *sources, height, width):
            x_place, y_place = places[(row, *s)]
            for r, down in shared_out(y_place + i - (height - 1) / 2).items():
                for c, across in shared_out(x_place + j - (width - 1) / 2).items():
                    if 0 <= r < canvas.shape[-2] and 0 <= c < canvas.shape[-1]:
                        y[(row, *s, ..., i, j)] += down * across * canvas[row, ..., r, c]
        return [y]

    return reference


def jax_spreading(jax: Any, places: Any, small: int, large: int) -> Any:
    """Matrices (..., large, small) that put pixels around a place on a line."""
    numpy = jax.numpy
    first = places - (small - 1) / 2
    cell = jax.lax.stop_gradient(numpy.floor(first))
    powers = (first - cell)[..., None] ** numpy.arange(6)
    tap = numpy.arange(large)[:, None] - numpy.arange(small) - cell[..., None, None] + 4
    weights = numpy.einsum("tp,...p->...t", tap_polynomials(), powers)
    return numpy.einsum("...yit,...t->...yi", jax.nn.one_hot(tap.astype(int), 10), weights)


def jax_placed(height: int, width: int) -> Callable[..., Any]:
    def function(jax: Any, params: Any, pictures: Any, places: Any, fluxes: Any = None) -> Any:
        while pictures.ndim < 5:
            pictures = pictures[:, None] if pictures.ndim == 3 else pictures[:, :, None]
        n, sources, colours, h, w = pictures.shape
        fluxes = (
            jax.numpy.ones((n, sources, colours))
            if fluxes is None
            else fluxes.reshape(n, sources, -1)
        )
        pictures = jax.numpy.broadcast_to(pictures, (n, sources, fluxes.shape[2], h, w))
        places = places.reshape(n, sources, 2)
        down = jax_spreading(jax, places[..., 1], h, height)
        across = jax_spreading(jax, places[..., 0], w, width)
        return jax.numpy.einsum("nsyi,nsbij,nsxj,nsb->nbyx", down, pictures, across, fluxes)

    return function


def jax_cut_out(height: int, width: int) -> Callable[..., Any]:
    def function(jax: Any, params: Any, canvas: Any, places: Any) -> Any:
        shape = (len(canvas), *places.shape[1:-1], *canvas.shape[1:-2], height, width)
        canvas, places = with_bands(canvas), places.reshape(len(places), -1, 2)
        down = jax_spreading(jax, places[..., 1], height, canvas.shape[2])
        across = jax_spreading(jax, places[..., 0], width, canvas.shape[3])
        return jax.numpy.einsum("nsyi,nbyx,nsxj->nsbij", down, canvas, across).reshape(shape)

    return function


def jax_poisson(jax: Any, params: Any, x: Any, rate: Any, mask: Any = 1.0) -> Any:
    return -flat(jax.scipy.stats.poisson.logpmf(x, rate) * mask).sum(1)


def jax_known_variance(
    jax: Any, params: Any, x: Any, mean: Any, variance: Any, mask: Any = 1.0
) -> Any:
    terms = jax.scipy.stats.norm.logpdf(x, mean, jax.numpy.sqrt(variance)) * mask
    return -flat(terms).sum(1)


# JAX.


def jax_measured(latents: int, **settings: Any) -> Callable[..., Any]:
    def function(jax: Any, params: Any, images: Any) -> Any:
        def one(image: Any) -> Any:
            return moments(jax.numpy, jax.scipy.stats.norm.ppf, image, **settings)[:latents]

        return jax.vmap(one)(images)

    return function


def tapered(side: int, flat: float) -> Callable[..., list[np.ndarray]]:
    """The reference for Taper."""
    middle = (side - 1) / 2

    def weight(i: int, j: int) -> float:
        r = math.dist((i, j), (middle, middle)) / middle
        if r <= flat:
            return 1.0
        return math.cos(math.pi / 2 * (r - flat) / (1 - flat)) ** 2 if r < 1 else 0.0

    def reference(params: dict[str, np.ndarray], x: np.ndarray) -> list[np.ndarray]:
        y = x.reshape(-1, side, side).copy()
        for i, j in itertools.product(range(side), repeat=2):
            y[:, i, j] *= weight(i, j)
        return [y.reshape(x.shape)]

    return reference


def jax_tapered(side: int, flat: float) -> Callable[..., Any]:
    def function(jax: Any, params: Any, x: Any) -> Any:
        y = abs(jax.numpy.linspace(-1, 1, side)[:, None] + 1j * jax.numpy.linspace(-1, 1, side))
        window = jax.numpy.interp(y, jax.numpy.array([flat, 1.0]), jax.numpy.array([0.0, 1.0]))
        return x * (0.5 + 0.5 * jax.numpy.cos(math.pi * window)).reshape(x.shape[1:])

    return function


def jax_resampled(
    side: int, inverse: bool, turns: float, size_spread: float, shift_spread: float
) -> Callable[..., Any]:
    def function(jax: Any, params: Any, pictures: Any, poses: Any) -> Any:
        def one(picture: Any, u: Any) -> Any:
            u = jax.numpy.concatenate([u, jax.numpy.zeros(4 - len(u))])
            angle = 2 * math.pi * turns * (jax.scipy.stats.norm.cdf(u[0]) - 0.5)
            turn = jax.numpy.exp(size_spread * u[1] + 1j * angle)  # the plane as complex numbers
            shift = shift_spread * (u[2] + 1j * u[3])
            y, x = np.mgrid[:side, :side] - (side - 1) / 2
            found = turn * (x + 1j * y) + shift if inverse else (x + 1j * y - shift) / turn
            return jax.scipy.ndimage.map_coordinates(
                picture.reshape(side, side),
                [found.imag + (side - 1) / 2, found.real + (side - 1) / 2],
                1,
                "nearest",
            ).reshape(picture.shape)

        return jax.vmap(one)(pictures, poses)

    return function


def flat(x: Any) -> Any:
    return x.reshape(len(x), -1)


def jax_nll(floor: float) -> Callable[..., Any]:
    def function(
        jax: Any, params: Any, x: Any, mean: Any, log_variance: Any, mask: Any = 1.0
    ) -> Any:
        sd = jax.numpy.sqrt(jax.numpy.exp(log_variance) + floor)
        return -flat(mask * jax.scipy.stats.norm.logpdf(x, mean, sd)).sum(1)

    return function


def jax_student_nll(degrees: float, floor: float, skewed: bool = True) -> Callable[..., Any]:
    def function(jax: Any, params: Any, x: Any, mean: Any, log_variance: Any, *further: Any) -> Any:
        skew, mask = (*further, 1.0)[:2] if skewed and further else (0.0, *further, 1.0)[:2]
        # These are T's own, not those of T over its sd: moments as in Fernandez and Steel, eq. 5.
        first = 2 * math.sqrt(degrees) / ((degrees - 1) * special.beta(degrees / 2, 0.5))
        second = degrees / (degrees - 2)
        g = jax.numpy.exp(skew)
        own_mean = first * (g**2 - g**-2) / (g + 1 / g)
        own_variance = second * (g**3 + g**-3) / (g + 1 / g) - own_mean**2
        ratio = jax.numpy.sqrt(own_variance / (jax.numpy.exp(log_variance) + floor))
        y = own_mean + ratio * (x - mean)
        u = jax.numpy.where(y > 0, y / g, y * g)
        terms = jax.scipy.stats.t.logpdf(u, degrees) + jax.numpy.log(2 * ratio / (g + 1 / g))
        return -flat(mask * terms).sum(1)

    return function


def jax_bce(jax: Any, params: Any, logit: Any, target: Any) -> Any:
    yes, no = jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)
    return -flat(target * yes + (1 - target) * no).sum(1)


def jax_kl(jax: Any, params: Any, mean: Any, log_variance: Any) -> Any:
    return flat(mean**2 + jax.numpy.exp(log_variance) - log_variance - 1).sum(1) / 2


def jax_kl_of_two(jax: Any, params: Any, *bottoms: Any) -> Any:
    """log det, trace and square of the textbook formula, one after the other."""
    mean, log_variance, prior_mean, prior_log_variance = (flat(b) for b in bottoms)
    determinants = (prior_log_variance - log_variance).sum(1)
    trace = (jax.numpy.exp(log_variance) / jax.numpy.exp(prior_log_variance)).sum(1)
    square = ((mean - prior_mean) ** 2 / jax.numpy.exp(prior_log_variance)).sum(1)
    return (determinants + trace + square - mean.shape[1]) / 2


def jax_softmax_loss(jax: Any, params: Any, logits: Any, label: Any) -> Any:
    label = label.reshape(-1).astype(int)
    return -jax.nn.log_softmax(logits)[jax.numpy.arange(len(label)), label]


def jax_accuracy(top: int) -> Callable[..., Any]:
    def function(jax: Any, params: Any, logits: Any, label: Any) -> Any:
        guesses = jax.lax.top_k(logits, top)[1]
        return (guesses == label.reshape(-1, 1)).any(axis=1).astype(float)

    return function


def jax_dense(activation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda jax, params, x: activation(
        jax, flat(x) @ params["weight"] + params.get("bias", 0.0)
    )


def jax_convolution(
    stride: int | Sequence[int] = 1,
    pad: int | Sequence[int] = 0,
    activation: Callable[..., Any] = lambda jax, x: x,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    axes: int = 2,
) -> Callable[..., Any]:
    def function(jax: Any, params: Any, x: Any) -> Any:
        y = jax.lax.conv_general_dilated(
            x,
            params["weight"],
            two(stride)[-axes:],
            [(p, p) for p in two(pad)[-axes:]],
            rhs_dilation=two(dilation)[-axes:],
            dimension_numbers=("NCHW", "HWIO", "NCHW") if axes == 2 else ("NCH", "HIO", "NCH"),
            feature_group_count=groups,
        )
        return activation(
            jax, y + (params["bias"].reshape(-1, *axes * [1]) if "bias" in params else 0)
        )

    return function


def jax_deconvolution(
    shape: Shape, activation: Callable[..., Any] = lambda jax, x: x, **settings: Any
) -> Callable[..., Any]:
    """The transpose that JAX makes of its own convolution, from tops of this shape."""

    def function(jax: Any, params: Any, x: Any) -> Any:
        weight = jax.numpy.moveaxis(params["weight"], 0, -1)
        channels = weight.shape[-2] * settings.get("groups", 1)
        top = jax.ShapeDtypeStruct((len(x), channels, *shape), x.dtype)
        convolve = jax_convolution(axes=len(shape), **settings)
        (y,) = jax.linear_transpose(lambda y: convolve(jax, {"weight": weight}, y), top)(x)
        return activation(
            jax, y + (params["bias"].reshape(-1, *len(shape) * [1]) if "bias" in params else 0)
        )

    return function


def jax_pooling(
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    more: Sequence[int] = (0, 0),
    mode: str = "max",
) -> Callable[..., Any]:
    """JAX's windows, over pads of minus infinity or of zero.

    Args:
        more: rows and columns, beyond the pads, that partial windows at the end have.
    """

    def function(jax: Any, params: Any, x: Any) -> Any:
        def windows(x: Any, start: float, reduce: Any, pads: Any) -> Any:
            shape = (1, 1, *kernel), (1, 1, *stride)
            return jax.lax.reduce_window(x, start, reduce, *shape, [(0, 0), (0, 0), *pads])

        pads = [(p, p + extra) for p, extra in zip(pad, more, strict=True)]
        if mode == "max":
            return windows(x, -jax.numpy.inf, jax.lax.max, pads)
        sizes = (n + 2 * p for n, p in zip(x.shape[2:], pad, strict=True))
        ones = jax.numpy.ones((*x.shape[:2], *sizes))
        area = windows(ones, 0.0, jax.lax.add, [(0, extra) for extra in more])
        return windows(x, 0.0, jax.lax.add, pads) / area

    return function


# name -> (the function of one number, the same for JAX, kinks)
NEURONS: dict[str, tuple[Callable[[float], float], Callable[..., Any], Sequence[float]]] = {
    "relu": (lambda x: x if x > 0 else 0.0, lambda jax, x: jax.nn.relu(x), (0.0,)),
    "leaky_relu": (lambda x: x if x > 0 else 0.01 * x, lambda jax, x: jax.nn.leaky_relu(x), (0.0,)),
    "elu": (lambda x: x if x > 0 else math.exp(x) - 1, lambda jax, x: jax.nn.elu(x), ()),
    "sigmoid": (lambda x: 1 / (1 + math.exp(-x)), lambda jax, x: jax.nn.sigmoid(x), ()),
    "tanh": (math.tanh, lambda jax, x: jax.numpy.tanh(x), ()),
    "softplus": (lambda x: math.log(1 + math.exp(x)), lambda jax, x: jax.nn.softplus(x), ()),
    "exponential": (math.exp, lambda jax, x: jax.numpy.exp(x), ()),
    "gelu": (
        lambda x: x * float(stats.norm.cdf(x)),
        lambda jax, x: jax.nn.gelu(x, approximate=False),
        (),
    ),
    "silu": (lambda x: x / (1 + math.exp(-x)), lambda jax, x: jax.nn.silu(x), ()),
}


def neuron_cases(name: str) -> list[Case]:
    """An activation as a layer of its own, and inside Dense."""
    function, jax_function, kinks = NEURONS[name]
    layer = Neuron.registry[name]
    return [
        Case(
            layer.__name__,
            lambda: layer("y", "x"),
            {"x": normal()},
            each(function),
            lambda jax, params, x: jax_function(jax, x),
            kinks,
        ),
        Case(
            f"Dense-{name}",
            lambda: L.Dense("y", "x", units=4, neuron=name, bias=BIAS),
            {"x": normal()},
            dense(function),
            jax_dense(jax_function),
        ),
    ]


BIAS = lk.initializers.Normal(0.5)
QUANTISATION = 1 / (255 * 255 * 12)
SERVED = np.random.default_rng(3).standard_normal((4, 3, 2))


@functools.cache
def hdf5() -> Path:
    """SERVED in an HDF5 file, which goes when Python ends."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "served.h5"
    with h5py.File(path, "w") as file:
        file["images"] = SERVED
    return path


@functools.cache
def grey_pictures() -> tuple[Path, np.ndarray]:
    """Four small PNG files in a folder, which goes when Python ends, and what is in them."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    levels = np.random.default_rng(4).integers(0, 256, (4, 3, 2), dtype=np.uint8)
    for i, picture in enumerate(levels):
        Image.fromarray(picture).save(folder / f"{i}.png")
    return folder, (levels[:, None] / np.float32(255)).astype("float64")


def loss_cases() -> list[Case]:
    shapes = {"x": normal(), "mean": normal(), "log_variance": normal()}
    gaussian = [
        Case(
            f"GaussianReconstruction-{label}",
            lambda settings=settings: L.GaussianReconstruction(
                "y", "x", "mean", "log_variance", **settings
            ),
            shapes,
            summed(gaussian_nll(floor)),
            jax_nll(floor),
            weight=settings.get("weight", 1.0),
        )
        for label, settings, floor in (
            ("default", {}, QUANTISATION),
            ("no-floor", {"floor": 0.0}, 0.0),
            ("weighted", {"floor": 0.3, "weight": 2.5}, 0.3),
        )
    ]
    # At log skews beyond 2, y is a small difference of large numbers, which float32 cannot hold.
    skew = Bottom(lambda rng, size: rng.normal(scale=0.3, size=size))
    student = [
        Case(
            f"StudentReconstruction-{label}",
            lambda settings=settings: L.StudentReconstruction(
                "y", "x", "mean", "log_variance", **settings
            ),
            shapes | ({"skew": skew} if "skew" in settings else {}),
            summed(student_nll(degrees, floor)),
            jax_student_nll(degrees, floor),
            weight=settings.get("weight", 1.0),
        )
        for label, settings, degrees, floor in (
            ("default", {}, 6.0, QUANTISATION),
            ("skew", {"skew": "skew"}, 6.0, QUANTISATION),
            ("skew-no-floor", {"skew": "skew", "floor": 0.0, "degrees": 4.5}, 4.5, 0.0),
            ("weighted", {"skew": "skew", "floor": 0.3, "weight": 2.5, "degrees": 30}, 30.0, 0.3),
        )
    ]
    mask = Bottom(lambda rng, size: rng.choice([0.0, 1.0, 0.4], size))
    masked = [
        Case(
            "GaussianReconstruction-mask",
            lambda: L.GaussianReconstruction("y", "x", "mean", "log_variance", "m", weight=0.7),
            shapes | {"m": mask},
            masked_sum(gaussian_nll(QUANTISATION)),
            jax_nll(QUANTISATION),
            weight=0.7,
        ),
        Case(
            "StudentReconstruction-mask",
            lambda: L.StudentReconstruction("y", "x", "mean", "log_variance", mask="m"),
            shapes | {"m": mask},
            masked_sum(student_nll(6.0, QUANTISATION)),
            jax_student_nll(6.0, QUANTISATION, skewed=False),
        ),
        Case(
            "StudentReconstruction-skew-mask",
            lambda: L.StudentReconstruction("y", "x", "mean", "log_variance", "s", "m", floor=0.3),
            shapes | {"s": skew, "m": mask},
            masked_sum(student_nll(6.0, 0.3)),
            jax_student_nll(6.0, 0.3),
        ),
    ]
    logit = {"x": normal()}
    return [
        *gaussian,
        *student,
        *masked,
        Case(
            "GaussianReconstruction-close-to-the-floor",
            lambda: L.GaussianReconstruction("y", "x", "mean", "log_variance"),
            {
                "x": Bottom(lambda rng, size: rng.normal(scale=2e-3, size=size)),
                "mean": Bottom(lambda rng, size: rng.normal(scale=2e-3, size=size)),
                "log_variance": Bottom(lambda rng, size: rng.uniform(-16, -11, size)),
            },
            summed(gaussian_nll(QUANTISATION)),
            jax_nll(QUANTISATION),
        ),
        Case(
            "GaussianKL",
            lambda: L.GaussianKL("y", "mean", "log_variance", weight=0.3),
            {"mean": normal(), "log_variance": normal()},
            summed(kl),
            jax_kl,
            weight=0.3,
        ),
        Case(
            "GaussianKL-of-two",
            lambda: L.GaussianKL("y", "mean", "log_variance", "p_mean", "p_log_variance"),
            {name: normal() for name in ("mean", "log_variance", "p_mean", "p_log_variance")},
            summed(kl),
            jax_kl_of_two,
        ),
        Case(
            "GaussianKL-of-two-weighted",
            lambda: L.GaussianKL("y", "m", "v", "p_mean", "p_variance", weight=0.3),
            {name: normal() for name in ("m", "v", "p_mean", "p_variance")},
            summed(kl),
            jax_kl_of_two,
            weight=0.3,
        ),
        Case(
            "SquareLoss",
            lambda: L.SquareLoss("y", "x", "t", weight=4.0),
            {"x": normal(), "t": normal()},
            summed(lambda x, t: (x - t) ** 2 / 2),
            lambda jax, params, x, t: flat((x - t) ** 2 / 2).sum(1),
            weight=4.0,
        ),
        Case(
            "HuberLoss",
            lambda: L.HuberLoss("y", "x", "t", weight=0.4),
            {"x": normal(), "t": normal()},
            summed(lambda x, t: float(special.huber(1.0, x - t))),
            lambda jax, params, x, t: flat(
                jax.numpy.where(abs(x - t) < 1, (x - t) ** 2 / 2, abs(x - t) - 0.5)
            ).sum(1),
            weight=0.4,
        ),
        Case(
            "HuberLoss-wide",
            lambda: L.HuberLoss("y", "x", "t", delta=1.7),
            {"x": normal(), "t": normal()},
            summed(lambda x, t: float(special.huber(1.7, x - t))),
            lambda jax, params, x, t: flat(
                jax.numpy.where(abs(x - t) < 1.7, (x - t) ** 2 / 2, 1.7 * abs(x - t) - 1.7**2 / 2)
            ).sum(1),
        ),
        *(
            Case(
                f"HingeLoss-{label}",
                lambda settings=settings: L.HingeLoss("y", "x", "t", **settings),
                {"x": clear_of(margin, *shape), "t": t},
                hinge(margin, power),
                jax_hinge(margin, power),
                weight=settings.get("weight", 1.0),
            )
            for label, margin, power, settings, shape, t in (
                ("signs", 1.0, 1, {}, (2, 3), signs(2, 3)),
                ("sign-squared", 0.7, 2, {"margin": 0.7, "squared": True}, (), signs()),
                ("class", 1.0, 1, {"weight": 0.6}, (4,), labels(4)),
                ("class-squared", 1.5, 2, {"margin": 1.5, "squared": True}, (2, 2), labels(4, 1)),
            )
        ),
        *(
            Case(
                f"ContrastiveLoss{label}",
                lambda margin=margin: L.ContrastiveLoss("y", "a", "b", "s", margin=margin),
                {"a": normal(2, 2), "b": normal(2, 2), "s": Bottom(zeros_and_ones().draw, shape)},
                contrastive(margin),
                jax_contrastive(margin),
            )
            for label, margin, shape in (("", 1.0, ()), ("-wide", 4.0, (1,)))
        ),
        Case(
            "BinaryCrossEntropy",
            lambda: L.BinaryCrossEntropy("y", "x", "t"),
            {**logit, "t": zeros_and_ones()},
            summed(lambda x, t: -stats.bernoulli.logpmf(int(t), special.expit(x))),
            jax_bce,
        ),
        Case(
            "BinaryCrossEntropy-shares",
            lambda: L.BinaryCrossEntropy("y", "x", "t", weight=0.7),
            {**logit, "t": unit_interval()},
            summed(lambda x, t: -t * special.log_expit(x) - (1 - t) * special.log_expit(-x)),
            jax_bce,
            weight=0.7,
        ),
        Case(
            "SoftmaxLoss",
            lambda: L.SoftmaxLoss("y", "x", "t"),
            {"x": normal(4), "t": labels(4)},
            softmax_loss,
            jax_softmax_loss,
        ),
        Case(
            "SoftmaxLoss-column",
            lambda: L.SoftmaxLoss("y", "x", "t", weight=0.2),
            {"x": normal(3), "t": labels(3, 1)},
            softmax_loss,
            jax_softmax_loss,
            weight=0.2,
        ),
        *(
            Case(
                f"SoftmaxLoss-{label}",
                lambda settings=settings, bottoms=bottoms: L.SoftmaxLoss("y", *bottoms, **settings),
                bottoms,
                softmax_along(axis, **of),
                jax_softmax_along(axis, **of),
                weight=settings.get("weight", 1.0),
                plain=False,
            )
            for label, axis, of, settings, bottoms in (
                (
                    "channels",
                    1,
                    {},
                    {"axis": 0, "weight": 0.3},
                    {"x": normal(3, 2, 4), "t": labels(3, 2, 4)},
                ),
                (
                    "steps-ignored",
                    2,
                    {"ignore": -1},
                    {"axis": -1, "ignore": -1},
                    {"x": normal(4, 3), "t": labels_or(-1, 3, 4, 1)},
                ),
                (
                    "class-weights-smoothing",
                    1,
                    {"weights": (0.5, 0.0, 2.0, 1.0), "smoothing": 0.2, "ignore": 9},
                    {"weights": [0.5, 0, 2, 1], "smoothing": 0.2, "ignore": 9},
                    {"x": normal(4), "t": labels_or(9, 4)},
                ),
                (
                    "importance-of-examples",
                    1,
                    {"smoothing": 0.1},
                    {"axis": 0, "smoothing": 0.1},
                    {"x": normal(3, 4), "t": labels(3, 4), "v": shares()},
                ),
                (
                    "importance-of-labels",
                    2,
                    {"weights": (1.0, 3.0)},
                    {"axis": 1, "weights": (1.0, 3.0)},
                    {"x": normal(3, 2, 2), "t": labels(2, 3, 2), "v": shares(3, 2)},
                ),
                (
                    "soft",
                    1,
                    {"weights": (1.0, 3.0, 0.5), "smoothing": 0.3},
                    {"axis": 0, "weights": (1.0, 3.0, 0.5), "smoothing": 0.3},
                    {"x": normal(3, 4), "t": distributions(1, 3, 4), "v": shares(4)},
                ),
                ("soft-classes", 1, {}, {}, {"x": normal(3), "t": distributions(1, 3)}),
            )
        ),
        Case(
            "Accuracy-along-an-axis",
            lambda: L.Accuracy("y", "x", "t", axis=0, top=2, ignore=-1),
            {"x": normal(4, 3, 2), "t": labels_or(-1, 4, 3, 2)},
            accuracy_along(1, 2, -1),
            jax_accuracy_along(1, 2, -1),
        ),
        Case(
            "Accuracy",
            lambda: L.Accuracy("y", "x", "t"),
            {"x": normal(4), "t": labels(4)},
            accuracy(1),
            jax_accuracy(1),
        ),
        Case(
            "Accuracy-top-2",
            lambda: L.Accuracy("y", "x", "t", top=2),
            {"x": normal(5), "t": labels(5, 1)},
            accuracy(2),
            jax_accuracy(2),
        ),
    ]


def convolution_cases() -> list[Case]:
    def leaky(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, 0.01 * x)

    def relu(x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0)

    pairs = {"stride": (2, 1), "pad": (0, 2), "dilation": (1, 2), "groups": 2}
    apart = {"stride": 2, "pad": 3, "dilation": 3}
    lines = {"stride": 2, "pad": 1, "groups": 3}
    return [
        Case(
            "Convolution-pairs-groups",
            lambda: L.Convolution(
                "y", "x", channels=4, kernel=(3, 2), **pairs, neuron="relu", bias=BIAS
            ),
            {"x": normal(6, 5, 4)},
            convolution(**pairs, activation=relu),
            jax_convolution(**pairs, activation=NEURONS["relu"][1]),
        ),
        Case(
            "Convolution-dilated-without-bias",
            lambda: L.Convolution(
                "y", "x", channels=2, kernel=3, **apart, neuron="relu", bias=None
            ),
            {"x": normal(2, 5, 8)},
            convolution(**apart, activation=relu),
            jax_convolution(**apart, activation=NEURONS["relu"][1]),
        ),
        Case(
            "Convolution-of-lines",
            lambda: L.Convolution("y", "x", channels=6, kernel=4, **lines, bias=BIAS),
            {"x": normal(3, 9)},
            of_lines(convolution((1, 2), (0, 1), groups=3), 0),
            jax_convolution(**lines, axes=1),
        ),
        Case(
            "Convolution-of-lines-without-bias",
            lambda: L.Convolution(
                "y", "x", channels=2, kernel=3, dilation=2, bias=None, neuron="tanh"
            ),
            {"x": normal(2, 8)},
            of_lines(convolution(dilation=(1, 2), activation=np.tanh), 0),
            jax_convolution(dilation=2, activation=NEURONS["tanh"][1], axes=1),
        ),
        Case(
            "Deconvolution-pairs-groups",
            lambda: L.Deconvolution(
                "y", "x", channels=6, kernel=(3, 2), **pairs, neuron="relu", bias=BIAS
            ),
            {"x": normal(4, 3, 6)},
            deconvolution((7, 4), **pairs, activation=relu),
            jax_deconvolution((7, 4), NEURONS["relu"][1], **pairs),
        ),
        Case(
            "Deconvolution-dilated-without-bias",
            lambda: L.Deconvolution(
                "y", "x", channels=2, kernel=3, **apart, shape=(6, 7), neuron="relu", bias=None
            ),
            {"x": normal(2, 3, 4)},
            deconvolution((6, 7), **apart, activation=relu),
            jax_deconvolution((6, 7), NEURONS["relu"][1], **apart),
        ),
        Case(
            "Deconvolution-of-lines",
            lambda: L.Deconvolution("y", "x", channels=3, kernel=4, **lines, shape=(9,), bias=BIAS),
            {"x": normal(6, 4)},
            of_lines(deconvolution((1, 9), (1, 2), (0, 1), groups=3), 1),
            jax_deconvolution((9,), **lines),
        ),
        Case(
            "Convolution",
            lambda: L.Convolution("y", "x", channels=3, kernel=3, bias=BIAS),
            {"x": normal(2, 5, 4)},
            convolution(),
            jax_convolution(),
        ),
        Case(
            "Convolution-relu",
            lambda: L.Convolution(
                "y", "x", channels=2, kernel=3, stride=2, pad=1, neuron="relu", bias=BIAS
            ),
            {"x": normal(3, 7, 4)},
            convolution(2, 1, lambda x: np.maximum(x, 0)),
            jax_convolution(2, 1, NEURONS["relu"][1]),
        ),
        Case(
            "Convolution-wide",
            lambda: L.Convolution(
                "y", "x", channels=2, kernel=5, stride=3, pad=4, neuron="leaky_relu", bias=BIAS
            ),
            {"x": normal(1, 6, 5)},
            convolution(3, 4, leaky),
            jax_convolution(3, 4, NEURONS["leaky_relu"][1]),
        ),
        Case(
            "Convolution-of-single-pixels",
            lambda: L.Convolution(
                "y", "x", channels=2, kernel=1, stride=3, neuron="tanh", bias=BIAS, l1=0.1, l2=0.4
            ),
            {"x": normal(2, 5, 7)},
            convolution(3, 0, np.tanh),
            jax_convolution(3, 0, NEURONS["tanh"][1]),
        ),
        Case(
            "Deconvolution",
            lambda: L.Deconvolution("y", "x", channels=3, kernel=3, bias=BIAS),
            {"x": normal(2, 3, 4)},
            deconvolution((5, 6)),
            jax_deconvolution((5, 6)),
        ),
        Case(
            "Deconvolution-relu",
            lambda: L.Deconvolution(
                "y",
                "x",
                channels=2,
                kernel=3,
                stride=2,
                pad=1,
                shape=(6, 5),
                neuron="relu",
                bias=BIAS,
            ),
            {"x": normal(3, 3, 3)},
            deconvolution((6, 5), 2, 1, lambda x: np.maximum(x, 0)),
            jax_deconvolution((6, 5), NEURONS["relu"][1], stride=2, pad=1),
        ),
        Case(
            "Deconvolution-wide",
            lambda: L.Deconvolution(
                "y", "x", channels=1, kernel=5, stride=3, pad=2, neuron="leaky_relu", bias=BIAS
            ),
            {"x": normal(2, 2, 3)},
            deconvolution((4, 7), 3, 2, leaky),
            jax_deconvolution((4, 7), NEURONS["leaky_relu"][1], stride=3, pad=2),
        ),
        Case(
            "Deconvolution-of-single-pixels",
            lambda: L.Deconvolution(
                "y",
                "x",
                channels=2,
                kernel=1,
                stride=3,
                shape=(6, 4),
                neuron="tanh",
                bias=BIAS,
                l1=0.1,
                l2=0.4,
            ),
            {"x": normal(3, 2, 2)},
            deconvolution((6, 4), 3, 0, np.tanh),
            jax_deconvolution((6, 4), NEURONS["tanh"][1], stride=3),
        ),
    ]


def pooling_cases() -> list[Case]:
    # label, shape, settings, rows and columns that partial windows have beyond the pads
    rows: list[tuple[str, Shape, dict[str, Any], tuple[int, int]]] = [
        ("", (2, 5, 4), {"kernel": 2, "stride": 2}, (0, 0)),
        ("of-all-pixels", (2, 3, 4), {"kernel": (3, 4)}, (0, 0)),
        ("overlapping", (3, 6, 7), {"kernel": 3, "stride": 2, "pad": 1}, (0, 0)),
        ("pairs", (2, 6, 5), {"kernel": (3, 2), "stride": (1, 2), "pad": (2, 1)}, (0, 0)),
        ("partial", (2, 6, 5), {"kernel": 3, "stride": 2, "ceil": True}, (1, 0)),
        (
            "partial-pads",
            (1, 6, 7),
            {"kernel": 4, "stride": 3, "pad": (2, 1), "ceil": True},
            (0, 1),
        ),
        ("left-out", (2, 4, 5), {"kernel": 2, "stride": 3, "pad": 1, "ceil": True}, (0, 0)),
        ("apart", (2, 7, 8), {"kernel": 1, "stride": 3, "ceil": True}, (0, 0)),
        ("of-lines", (3, 7), {"kernel": 3, "stride": 2, "pad": 1}, (0, 0)),
    ]

    def case(mode: str, label: str, shape: Shape, settings: dict[str, Any], more: Any) -> Case:
        jax = {"stride": 1, "pad": 0, **settings}
        windows = {name: two(jax[name]) for name in ("kernel", "stride", "pad")}
        function = jax_pooling(**windows, more=more, mode=mode)
        if len(shape) == 2:
            windows = {"kernel": (1, 3), "stride": (1, 2), "pad": (0, 1)}
            of_pictures = jax_pooling(**windows, mode=mode)

            def function(jax: Any, params: Any, x: Any) -> Any:
                return of_pictures(jax, params, x[:, :, None])[:, :, 0]

        return Case(
            f"Pooling-{mode}-{label}".rstrip("-"),
            lambda: L.Pooling("y", "x", mode=mode, **settings),
            {"x": normal(*shape)},
            pooling(**settings, mode=mode),
            function,
        )

    return [
        *(case(mode, *row) for mode in ("max", "mean") for row in rows),
        Case(
            "GlobalPooling-mean",
            lambda: L.GlobalPooling("y", "x"),
            {"x": normal(3, 4, 5)},
            global_pooling("mean"),
            lambda jax, params, x: x.mean(axis=(2, 3)),
        ),
        Case(
            "GlobalPooling-max",
            lambda: L.GlobalPooling("y", "x", mode="max"),
            {"x": normal(3, 17)},
            global_pooling("max"),
            lambda jax, params, x: x.max(axis=2),
        ),
    ]


def pose_cases() -> list[Case]:
    spreads = {"size_spread": 0.3, "shift_spread": 0.8}
    transforms = [
        Case(
            f"SpatialTransform-{label}",
            lambda settings=settings: L.SpatialTransform("y", "picture", "pose", **settings),
            {"picture": normal(*shape), "pose": clear_poses(numbers, **settings)},
            resampled(**settings),
            jax_resampled(**settings),
        )
        for label, numbers, shape, settings in (
            ("seen", 4, (25,), {"side": 5, "inverse": False, "turns": 0.5, **spreads}),
            ("canonical", 4, (4, 4), {"side": 4, "inverse": True, "turns": 1.0, **spreads}),
            ("angle-only", 1, (16,), {"side": 4, "inverse": False, "turns": 1.0, **spreads}),
        )
    ]
    spreads = {"size_spread": 0.2, "shift_spread": 0.5}
    poses = [
        Case(
            f"ImagePose-{label}",
            lambda settings=settings: L.ImagePose("y", "x", **settings),
            {"x": galaxies(settings["side"])},
            measured(**settings),
            jax_measured(**settings),
        )
        for label, settings in (
            (
                "half-turn",
                {"side": 21, "latents": 4, "size": 2.5, "threshold": 3.0, "turns": 0.5, **spreads},
            ),
            (
                "full-turn",
                {"side": 16, "latents": 3, "size": 2.0, "threshold": 1.0, "turns": 1.0, **spreads},
            ),
        )
    ]
    tapers = [
        Case(
            f"Taper-{label}",
            lambda settings=settings: L.Taper("y", "x", **settings),
            {"x": normal(*shape)},
            tapered(**settings),
            jax_tapered(**settings),
        )
        for label, shape, settings in (
            ("odd", (49,), {"side": 7, "flat": 0.7}),
            ("even", (1, 6, 6), {"side": 6, "flat": 0.0}),
        )
    ]
    return [*transforms, *poses, *tapers]


def sky_cases() -> list[Case]:
    place = between(-4.0, 9.0, 2)
    known = {"x": normal(2, 3), "mean": normal(2, 3)}
    counts = Bottom(lambda rng, size: rng.poisson(3.0, size).astype(float), (2, 3))
    return [
        *(
            Case(
                f"ConvolvePSF{label}",
                lambda: L.ConvolvePSF("y", "x", "psf"),
                {"x": normal(*picture), "psf": normal(*psf)},
                blurred,
                jax_blurred,
            )
            for label, picture, psf in (
                ("", (5, 6), (3, 5)),
                ("-bands", (2, 4, 5), (2, 3, 3)),
                ("-one-psf", (3, 4, 3), (3, 1)),
                ("-one-picture", (4, 3), (2, 5, 3)),
                ("-wide", (2, 3), (7, 9)),
            )
        ),
        *(
            Case(
                f"Normalise{label}",
                lambda axes=axes: L.Normalise("y", "x", axes=axes),
                {"x": between(0.1, 2.0, 2, 3, 4)},
                normalised(along),
                lambda jax, params, x, along=along: x / x.sum(axis=along, keepdims=True),
            )
            for label, axes, along in (
                ("", None, (1, 2, 3)),
                ("-pictures", (-2, -1), (2, 3)),
                ("-axis", 0, (1,)),
            )
        ),
        *(
            Case(
                f"PlaceSources{label}",
                lambda bottoms=bottoms: L.PlaceSources("y", *bottoms, shape=(6, 7)),
                bottoms,
                placed(6, 7),
                jax_placed(6, 7),
            )
            for label, bottoms in (
                ("", {"x": normal(3, 2), "p": place, "f": normal(2)}),
                (
                    "-several",
                    {"x": normal(3, 2, 3), "p": between(-4.0, 9.0, 3, 2), "f": normal(3, 2)},
                ),
                ("-stars", {"x": normal(4, 1, 1), "p": between(0, 6, 4, 2), "f": normal(4)}),
                ("-colours", {"x": normal(2, 3, 2, 2), "p": between(-4.0, 9.0, 2, 2)}),
                (
                    "-colours-flux",
                    {"x": normal(2, 3, 1, 2), "p": between(0, 6, 2, 2), "f": normal(2, 3)},
                ),
            )
        ),
        *(
            Case(
                f"CutSources{label}",
                lambda: L.CutSources("y", "x", "p", shape=(3, 2)),
                {"x": normal(*canvas), "p": between(-4.0, 9.0, *places)},
                cut_out(3, 2),
                jax_cut_out(3, 2),
            )
            for label, canvas, places in (
                ("", (5, 6), (2,)),
                ("-bands", (2, 5, 6), (2,)),
                ("-several", (2, 5, 6), (3, 2)),
                ("-several-one-band", (6, 5), (2, 2)),
            )
        ),
        Case(
            "KnownVarianceReconstruction",
            lambda: L.KnownVarianceReconstruction("y", "x", "mean", "v"),
            {**known, "v": between(0.2, 3, 2, 3)},
            summed(lambda x, mean, v: -stats.norm.logpdf(x, mean, math.sqrt(v))),
            jax_known_variance,
        ),
        Case(
            "KnownVarianceReconstruction-mask",
            lambda: L.KnownVarianceReconstruction("y", "x", "mean", "v", "m", weight=0.3),
            {**known, "v": between(0.2, 3, 2, 1), "m": masks(2, 3)},
            masked_sum(lambda x, mean, v: -stats.norm.logpdf(x, mean, math.sqrt(v))),
            jax_known_variance,
            weight=0.3,
        ),
        Case(
            "PoissonReconstruction",
            lambda: L.PoissonReconstruction("y", "x", "rate", weight=1.4),
            {"x": counts, "rate": between(0.5, 6, 2, 3)},
            summed(lambda x, rate: -stats.poisson.logpmf(int(x), rate)),
            jax_poisson,
            weight=1.4,
        ),
        Case(
            "PoissonReconstruction-mask",
            lambda: L.PoissonReconstruction("y", "x", "rate", "m"),
            {"x": counts, "rate": between(0.5, 6, 2, 3), "m": masks(1, 3)},
            masked_sum(lambda x, rate: -stats.poisson.logpmf(int(x), rate)),
            jax_poisson,
        ),
    ]


def affine_of_groups(
    groups: Callable[[int, Shape], Any], own: slice, epsilon: float = 1e-5
) -> Callable[..., list[np.ndarray]]:
    """The reference for normalisation: `statistics` of each group, number by number.

    Args:
        groups: of a batch's rows and shape: labels, an array of that shape.
        own: the axes, with the batch axis, that gain and bias are of.
    """

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        labels, y = groups(len(x), x.shape[1:]), np.empty_like(x)
        for label in np.unique(labels):
            values = x[labels == label].tolist()
            mean, variance = statistics.fmean(values), statistics.pvariance(values)
            y[labels == label] = [(v - mean) / math.sqrt(variance + epsilon) for v in values]
        for place in np.ndindex(*x.shape):
            gain = params["gain"][place[own]] if "gain" in params else 1.0
            y[place] = gain * y[place] + (params["bias"][place[own]] if "bias" in params else 0.0)
        return [y]

    return reference


def jax_affine_of_groups(
    view: Shape, over: Shape, spread: Shape, epsilon: float = 1e-5
) -> Callable[..., Any]:
    """Normalisation and affine map for JAX; groups are axes `over` of x reshaped to (n, *view)."""

    def function(jax: Any, params: Any, x: Any) -> Any:
        grouped = x.reshape(len(x), *view)
        mean, variance = grouped.mean(over, keepdims=True), grouped.var(over, keepdims=True)
        y = ((grouped - mean) * jax.lax.rsqrt(variance + epsilon)).reshape(x.shape)
        gain, bias = (
            jax.numpy.broadcast_to(params.get(name, default), params[name].shape).reshape(spread)
            if name in params
            else default
            for name, default in (("gain", 1.0), ("bias", 0.0))
        )
        return y * gain + bias

    return function


def normalization_cases() -> list[Case]:
    affine = {"gain": lk.initializers.Normal(0.5, 1.0), "bias": BIAS}

    def channels(rows: int, shape: Shape) -> Any:
        return np.broadcast_to(np.arange(shape[0])[:, None, None], (rows, *shape))

    def features(rows: int, shape: Shape) -> Any:
        return np.broadcast_to(np.arange(shape[1]), (rows, *shape))

    def examples(parts: int) -> Callable[[int, Shape], Any]:
        def groups(rows: int, shape: Shape) -> Any:
            size = math.prod(shape) // parts
            return (np.arange(rows * parts * size) // size).reshape(rows, *shape)

        return groups

    return [
        Case(
            "BatchNorm",
            lambda: L.BatchNorm("y", "x", **affine),
            {"x": normal(2, 3, 2)},
            affine_of_groups(channels, np.s_[1:2]),
            jax_affine_of_groups((2, 6), (0, 2), (2, 1, 1)),
        ),
        Case(
            "BatchNorm-last-axis",
            lambda: L.BatchNorm("y", "x", axis=-1, epsilon=0.1, gain=None, bias=None),
            {"x": normal(4, 3)},
            affine_of_groups(features, np.s_[2:3], 0.1),
            jax_affine_of_groups((4, 3), (0, 1), (), 0.1),
        ),
        Case(
            "BatchNorm-frozen",
            lambda: L.BatchNorm("y", "x", frozen=True, **affine),
            {"x": normal(4)},
            lambda params, x: [params["gain"] * (x / math.sqrt(1 + 1e-5)) + params["bias"]],
            lambda jax, params, x: params["gain"] * x * (1 + 1e-5) ** -0.5 + params["bias"],
        ),
        Case(
            "BatchNorm-test",
            lambda: L.BatchNorm("y", "x", bias=None, gain=affine["gain"]),
            {"x": normal(3, 2)},
            lambda params, x: [params["gain"][:, None] * (x / math.sqrt(1 + 1e-5))],
            lambda jax, params, x: params["gain"][:, None] * x * (1 + 1e-5) ** -0.5,
            phase="test",
        ),
        Case(
            "LayerNorm",
            lambda: L.LayerNorm("y", "x", **affine),
            {"x": normal(3, 4)},
            affine_of_groups(examples(3), np.s_[2:3]),
            jax_affine_of_groups((3, 4), (2,), (4,)),
        ),
        Case(
            "LayerNorm-all-axes",
            lambda: L.LayerNorm("y", "x", axis=0, epsilon=0.2, bias=None, gain=affine["gain"]),
            {"x": normal(2, 3)},
            affine_of_groups(examples(1), np.s_[1:3], 0.2),
            jax_affine_of_groups((6,), (1,), (2, 3), 0.2),
        ),
        Case(
            "GroupNorm",
            lambda: L.GroupNorm("y", "x", groups=2, **affine),
            {"x": normal(4, 3, 2)},
            affine_of_groups(examples(2), np.s_[1:2]),
            jax_affine_of_groups((2, 12), (2,), (4, 1, 1)),
        ),
    ]


CASES: list[Case] = [
    Case(
        "Input",
        lambda: L.Input("y", shape=(2, 3)),
        {"y": normal(2, 3)},
        lambda params, y: [y],
        lambda jax, params, y: y,
    ),
    Case(
        "MemoryData",
        lambda: L.MemoryData("y", data=SERVED, shuffle=False),
        {},
        lambda params: [SERVED],
        lambda jax, params: SERVED,
    ),
    Case(
        "HDF5Data",
        lambda: L.HDF5Data("y", path=hdf5(), shuffle=False),
        {},
        lambda params: [SERVED],
        lambda jax, params: SERVED,
    ),
    Case(
        "GeneratorData",
        lambda: L.GeneratorData("y", make=lambda: iter(SERVED)),
        {},
        lambda params: [SERVED],
        lambda jax, params: SERVED,
    ),
    Case(
        "ImageData",
        lambda: L.ImageData("y", folder=grey_pictures()[0], channels=1, shuffle=False),
        {},
        lambda params: [grey_pictures()[1]],
        lambda jax, params: grey_pictures()[1],
    ),
    Case(
        "Dense",
        lambda: L.Dense("y", "x", units=3, bias=BIAS),
        {"x": normal()},
        dense(lambda x: x),
        jax_dense(lambda jax, x: x),
    ),
    Case(
        "Dense-regularised",
        lambda: L.Dense("y", "x", units=2, bias=BIAS, l1=0.3, l2=0.7),
        {"x": normal(2, 3)},
        dense(lambda x: x),
        jax_dense(lambda jax, x: x),
    ),
    Case(
        "Dense-without-bias",
        lambda: L.Dense("y", "x", units=5, bias=None, neuron="leaky_relu"),
        {"x": normal(2, 3)},
        dense(NEURONS["leaky_relu"][0]),
        jax_dense(NEURONS["leaky_relu"][1]),
    ),
    Case(
        "Dense-prelu",
        lambda: L.Dense("y", "x", units=5, neuron=L.PReLU.of(slope=BIAS), bias=BIAS),
        {"x": normal(6)},
        before_prelu(dense(lambda x: x)),
        jax_before_prelu(jax_dense(lambda jax, x: x)),
        plain=False,
    ),
    Case(
        "TiedDense-prelu",
        lambda: L.TiedDense("y", "x", to="e", neuron=L.PReLU.of(slope=BIAS), bias=None),
        {"x": normal(2, 3), "z": normal(5)},
        before_prelu(tied_dense(lambda x: x)),
        lambda jax, params, x: jax_prelu(jax, params, flat(x) @ params["weight"].T),
        plain=False,
        beside=lambda: [L.Dense("e", "z", units=6, neuron="tanh", bias=BIAS)],
    ),
    Case(
        "Convolution-prelu",
        lambda: L.Convolution(
            "y", "x", channels=3, kernel=2, neuron=L.PReLU.of(slope=BIAS), bias=BIAS
        ),
        {"x": normal(2, 4, 3)},
        before_prelu(convolution()),
        jax_before_prelu(jax_convolution()),
        plain=False,
    ),
    Case(
        "Deconvolution-prelu-line",
        lambda: L.Deconvolution(
            "y", "x", channels=2, kernel=3, stride=2, neuron=L.PReLU.of(slope=BIAS), bias=None
        ),
        {"x": normal(2, 4)},
        before_prelu(of_lines(deconvolution((1, 9), stride=(1, 2)), 1)),
        jax_before_prelu(jax_deconvolution((9,), stride=2)),
        plain=False,
    ),
    *(
        Case(
            f"TiedDense-{neuron}",
            lambda neuron=neuron: L.TiedDense("y", "x", to="e", neuron=neuron, bias=BIAS),
            {"x": normal(2, 3), "z": normal(5)},
            tied_dense(f),
            lambda jax, params, x, f=jax_f: f(jax, flat(x) @ params["weight"].T + params["bias"]),
            beside=lambda: [L.Dense("e", "z", units=6, neuron="tanh", bias=BIAS)],
        )
        for neuron, f, jax_f in (
            (None, lambda x: x, lambda jax, x: x),
            *((name, *NEURONS[name][:2]) for name in ("leaky_relu", "tanh")),
        )
    ),
    *(case for name in NEURONS for case in neuron_cases(name)),
    Case(
        "LeakyReLU-steep",
        lambda: L.LeakyReLU("y", "x", slope=0.3),
        {"x": normal()},
        each(lambda x: x if x > 0 else 0.3 * x),
        lambda jax, params, x: jax.nn.leaky_relu(x, 0.3),
        (0.0,),
    ),
    Case(
        "ELU-shallow",
        lambda: L.ELU("y", "x", alpha=0.4),
        {"x": normal()},
        each(lambda x: x if x > 0 else 0.4 * (math.exp(x) - 1)),
        lambda jax, params, x: jax.nn.elu(x, 0.4),
        (0.0,),
    ),
    Case(
        "Dense-with-a-setting",
        lambda: L.Dense("y", "x", units=4, neuron=L.LeakyReLU.of(slope=0.3), bias=BIAS),
        {"x": normal()},
        dense(lambda x: x if x > 0 else 0.3 * x),
        jax_dense(lambda jax, x: jax.nn.leaky_relu(x, 0.3)),
    ),
    Case(
        "PReLU", lambda: L.PReLU("y", "x", slope=BIAS), {"x": normal(5)}, prelu, jax_prelu, (0.0,)
    ),
    Case(
        "PReLU-pictures",
        lambda: L.PReLU("y", "x", slope=BIAS),
        {"x": normal(3, 2, 4)},
        prelu,
        jax_prelu,
        (0.0,),
    ),
    Case(
        "Affine",
        lambda: L.Affine("y", "x", gain=BIAS, bias=BIAS),
        {"x": normal(3, 2, 2)},
        affine(1),
        jax_affine(1),
    ),
    Case(
        "Affine-gain",
        lambda: L.Affine("y", "x", axis=-1, gain=BIAS, bias=None),
        {"x": normal(2, 3)},
        affine(2),
        jax_affine(2),
    ),
    Case(
        "Affine-bias",
        lambda: L.Affine("y", "x", gain=None, bias=BIAS),
        {"x": normal(4)},
        affine(1),
        jax_affine(1),
    ),
    *(
        Case(
            f"Reduce-{label}",
            lambda settings=settings: L.Reduce("y", "x", **settings),
            {"x": normal(2, 3, 4)},
            reduced(mode, along, settings.get("keep", False)),
            lambda jax, params, x, mode=mode, along=along, settings=settings: getattr(
                jax.numpy, mode
            )(x, axis=along, keepdims=settings.get("keep", False)),
        )
        for label, mode, along, settings in (
            ("sum", "sum", (1, 2, 3), {}),
            ("sum-middle", "sum", (2,), {"axes": 1}),
            ("mean", "mean", (1, 3), {"mode": "mean", "axes": (0, -1), "keep": True}),
            ("max", "max", (2, 3), {"mode": "max", "axes": (-1, 1)}),
            ("max-first", "max", (1,), {"mode": "max", "axes": [0], "keep": True}),
        )
    ),
    *matmul_cases(),
    *recurrent_cases(),
    Case(
        "Embed",
        lambda: L.Embed("y", "x", count=3, units=4),
        {"x": labels(3)},
        lambda params, x: [np.array([params["weight"][int(i)] for i in x])],
        lambda jax, params, x: params["weight"][x.astype(int)],
    ),
    Case(
        "Embed-steps",
        lambda: L.Embed("y", "x", count=5, units=2, weight="xavier", l2=0.3),
        {"x": labels(5, 6)},
        lambda params, x: [np.array([[params["weight"][int(i)] for i in row] for row in x])],
        lambda jax, params, x: jax.nn.one_hot(x.astype(int), 5) @ params["weight"],
    ),
    Case(
        "OneHot",
        lambda: L.OneHot("y", "x", count=4),
        {"x": labels(4)},
        lambda params, x: [np.array([[float(k == i) for k in range(4)] for i in x])],
        lambda jax, params, x: jax.nn.one_hot(x.astype(int), 4),
    ),
    Case(
        "OneHot-channels",
        lambda: L.OneHot("y", "x", count=3, axis=0),
        {"x": labels(3, 2, 2)},
        lambda params, x: [np.array([[(e == k) * 1.0 for k in range(3)] for e in x])],
        lambda jax, params, x: jax.nn.one_hot(x.astype(int), 3, axis=1),
    ),
    Case(
        "Normal",
        lambda: L.Normal("y", shape=(3, 5)),
        {},
        lambda params, noise: [noise],
        lambda jax, params, noise: jax.numpy.array(noise),
        noise="normal",
    ),
    *(
        Case(
            f"Softmax{label}",
            lambda axis=axis: L.Softmax("y", "x", axis=axis),
            {"x": normal(3, 4)},
            lambda params, x, along=along: [special.softmax(x, axis=along)],
            lambda jax, params, x, along=along: jax.nn.softmax(x, along),
        )
        for label, axis, along in (("", None, (1, 2)), ("-axis", 0, 1), ("-last-axis", -1, 2))
    ),
    Case(
        "Slice",
        lambda: L.Slice("y", "x", tops=["y", "y2", "y3"]),
        {"x": normal(6, 2)},
        slices(2, 2, 2),
        lambda jax, params, x: (x[:, :2], x[:, 2:4], x[:, 4:]),
    ),
    Case(
        "Slice-sizes",
        lambda: L.Slice("y", "x", tops=["y", "y2"], sizes=[1, 4]),
        {"x": normal(5)},
        slices(1, 4),
        lambda jax, params, x: (x[:, :1], x[:, 1:]),
    ),
    Case(
        "Slice-last-axis",
        lambda: L.Slice("y", "x", tops=["y", "y2"], sizes=[1, 3], axis=-1),
        {"x": normal(2, 3, 4)},
        lambda params, x: [
            np.array([[[r[:1] for r in m] for m in e] for e in x.tolist()]),
            np.array([[[r[1:] for r in m] for m in e] for e in x.tolist()]),
        ],
        lambda jax, params, x: tuple(jax.numpy.split(x, [1], axis=3)),
    ),
    Case(
        "Concat-second-axis",
        lambda: L.Concat("y", "a", "b", axis=1),
        {"a": normal(2, 3, 2), "b": normal(2, 1, 2)},
        lambda params, a, b: [
            np.array(
                [
                    [[*p, *q] for p, q in zip(d, e, strict=True)]
                    for d, e in zip(a.tolist(), b.tolist(), strict=True)
                ]
            )
        ],
        lambda jax, params, *bottoms: jax.numpy.concatenate(bottoms, axis=2),
    ),
    Case(
        "Permute",
        lambda: L.Permute("y", "x", order=(1, 2, 0)),
        {"x": normal(2, 3, 4)},
        lambda params, x: [
            np.array(
                [[[[e[i, j, k] for i in range(2)] for k in range(4)] for j in range(3)] for e in x]
            )
        ],
        lambda jax, params, x: jax.numpy.moveaxis(x, 1, -1),
    ),
    Case(
        "Concat",
        lambda: L.Concat("y", "a", "b", "c"),
        {"a": normal(2, 3), "b": normal(1, 3), "c": normal(3, 3)},
        concat,
        lambda jax, params, *bottoms: jax.numpy.concatenate(bottoms, axis=1),
    ),
    Case(
        "Reshape",
        lambda: L.Reshape("y", "x", shape=(3, 4)),
        {"x": normal(2, 6)},
        lambda params, x: [np.array([[[*e.flat][i : i + 4] for i in (0, 4, 8)] for e in x])],
        lambda jax, params, x: x.reshape(-1, 3, 4),
    ),
    Case(
        "Reshape-worked-out",
        lambda: L.Reshape("y", "x", shape=(3, -1, 2)),
        {"x": normal(2, 6)},
        lambda params, x: [
            np.array(
                [[[[*e.flat][i : i + 2], [*e.flat][i + 2 : i + 4]] for i in (0, 4, 8)] for e in x]
            )
        ],
        lambda jax, params, x: x.reshape(-1, 3, 2, 2),
    ),
    Case(
        "Add",
        lambda: L.Add("y", "a", "b", "c"),
        {"a": normal(), "b": normal(), "c": normal()},
        each(lambda a, b, c: a + b + c),
        lambda jax, params, a, b, c: a + b + c,
    ),
    Case(
        "Add-one",
        lambda: L.Add("y", "x"),
        {"x": normal()},
        each(lambda x: x),
        lambda jax, params, x: x,
    ),
    Case(
        "Multiply",
        lambda: L.Multiply("y", "a", "b", "c"),
        {"a": normal(), "b": normal(), "c": normal()},
        each(lambda a, b, c: a * b * c),
        lambda jax, params, a, b, c: a * b * c,
    ),
    Case(
        "Multiply-square",
        lambda: L.Multiply("y", "x", "x"),
        {"x": normal()},
        each(lambda x, same: x * same),
        lambda jax, params, x, same: x * same,
    ),
    Case(
        "Subtract",
        lambda: L.Subtract("y", "a", "b"),
        {"a": normal(), "b": normal()},
        each(lambda a, b: a - b),
        lambda jax, params, a, b: a - b,
    ),
    Case(
        "Divide",
        lambda: L.Divide("y", "a", "b"),
        {"a": normal(), "b": away_from_zero()},
        each(lambda a, b: a / b),
        lambda jax, params, a, b: a / b,
    ),
    *(
        Case(
            f"{kind}-broadcast",
            lambda kind=kind: getattr(L, kind)("y", "a", "b"),
            {"a": away_from_zero(2, 1, 3), "b": away_from_zero(2, 4, 1)},
            lambda params, a, b, f=f: each(f)(params, *repeated(a, b)),
            lambda jax, params, a, b, f=f: f(a, b),
            plain=False,
        )
        for kind, f in {
            "Add": lambda a, b: a + b,
            "Subtract": lambda a, b: a - b,
            "Multiply": lambda a, b: a * b,
            "Divide": lambda a, b: a / b,
        }.items()
    ),
    *(
        Case(
            f"Dropout-{ratio}",
            lambda ratio=ratio: L.Dropout("y", "x", ratio=ratio),
            {"x": normal()},
            each(lambda x, u, ratio=ratio: 0.0 if u < ratio else x / (1 - ratio)),
            lambda jax, params, x, noise, ratio=ratio: jax.numpy.where(
                noise < ratio, 0, x / (1 - ratio)
            ),
            noise="uniform",
        )
        for ratio in (0.5, 0.2, 0.0)
    ),
    Case(
        "Dropout-test",
        lambda: L.Dropout("y", "x"),
        {"x": normal()},
        each(lambda x: x),
        lambda jax, params, x: x,
        phase="test",
    ),
    Case(
        "Reparameterize",
        lambda: L.Reparameterize("y", "mean", "log_variance"),
        {"mean": normal(), "log_variance": normal()},
        each(lambda mean, log_variance, noise: mean + math.sqrt(math.exp(log_variance)) * noise),
        lambda jax, params, mean, log_variance, noise: (
            mean + jax.numpy.sqrt(jax.numpy.exp(log_variance)) * noise
        ),
        noise="normal",
    ),
    *convolution_cases(),
    *normalization_cases(),
    *loss_cases(),
    *pooling_cases(),
    *pose_cases(),
    *sky_cases(),
]

WITH_KERNELS = [
    *CASES,
    *(replace(c, id=f"{c.id}-kernels", kernels="auto") for c in CASES if c.has_kernels),
]
