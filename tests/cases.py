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
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import integrate, ndimage, signal, special, stats

import layerkit as lk
from layerkit import layers as L
from layerkit.backends import philox
from layerkit.engines.cpu.runners import RUNNERS
from layerkit.layers.neuron import Neuron

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Bottom:
    """What a bottom holds: `draw(rng, shape)`, and the shape of an example (None: a random one)."""

    draw: Callable[[np.random.Generator, Shape], np.ndarray]
    shape: Shape | None = None


def normal(*shape: int) -> Bottom:
    return Bottom(lambda rng, size: rng.standard_normal(size), shape or None)


def unit_interval() -> Bottom:
    return Bottom(lambda rng, size: rng.uniform(size=size))


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
    beside: Callable[[], list[lk.Layer]] = list

    @property
    def has_kernels(self) -> bool:
        """Tell whether the layer is more than its array code."""
        return type(self.layer()) in RUNNERS

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
        weight, bias = params["weight"], params["bias"]
        y = np.empty((len(x), len(bias)))
        for row, example in enumerate(x):
            for unit in range(len(bias)):
                terms = [float(v) * w for v, w in zip(example.flat, weight[:, unit], strict=True)]
                y[row, unit] = activation(math.fsum(terms) + bias[unit])
        return [y]

    return reference


def tied_dense(activation: Callable[[float], float]) -> Callable[..., list[np.ndarray]]:
    """The reference for TiedDense: that of Dense, of the other layer's weight turned round."""

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        rows, columns = params["weight"].shape
        turned = np.array([[params["weight"][i, j] for i in range(rows)] for j in range(columns)])
        return dense(activation)({**params, "weight": turned}, x)

    return reference


def convolution(
    stride: int = 1, pad: int = 0, activation: Callable[[Any], Any] = lambda x: x
) -> Callable[..., list[np.ndarray]]:
    """The reference for Convolution: scipy's correlation, at every stride-th place."""

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        weight, bias = params["weight"], params["bias"]
        padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
        return [
            np.array(
                [
                    [
                        activation(
                            bias[o]
                            + sum(
                                signal.correlate2d(picture, weight[:, :, c, o], "valid")
                                for c, picture in enumerate(example)
                            )[::stride, ::stride]
                        )
                        for o in range(len(bias))
                    ]
                    for example in padded
                ]
            )
        ]

    return reference


def deconvolution(
    shape: Shape, stride: int = 1, pad: int = 0, activation: Callable[[Any], Any] = lambda x: x
) -> Callable[..., list[np.ndarray]]:
    """The reference for Deconvolution: scipy's convolution of pictures with gaps between pixels."""

    def reference(params: dict[str, np.ndarray], x: np.ndarray):
        weight, bias = params["weight"], params["bias"]
        n, channels, h, w = x.shape
        apart = np.zeros((n, channels, h * stride, w * stride))
        apart[:, :, ::stride, ::stride] = x
        window = np.s_[pad : pad + shape[0], pad : pad + shape[1]]
        room = [(0, pad + shape[0]), (0, pad + shape[1])]
        return [
            np.array(
                [
                    [
                        activation(
                            bias[o]
                            + np.pad(
                                sum(
                                    signal.convolve2d(picture, weight[c, :, :, o])
                                    for c, picture in enumerate(example)
                                ),
                                room,
                            )[window]
                        )
                        for o in range(len(bias))
                    ]
                    for example in apart
                ]
            )
        ]

    return reference


def accuracy(top: int) -> Callable[..., list[np.ndarray]]:
    """The reference for Accuracy: sort the guesses."""

    def reference(params: dict[str, np.ndarray], logits: np.ndarray, label: np.ndarray):
        hits = []
        for row, right in zip(logits, label.flat, strict=True):
            guesses = sorted(range(row.size), key=lambda k: -row.flat[k])[:top]
            hits.append(float(int(right) in guesses))
        return [np.array(hits)]

    return reference


def softmax_loss(params: dict[str, np.ndarray], logits: np.ndarray, label: np.ndarray):
    return [
        np.array(
            [
                special.logsumexp(row) - row.flat[int(right)]
                for row, right in zip(logits, label.flat, strict=True)
            ]
        )
    ]


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
        # What is missing to `total` draws the centre to that of the window, and the shape to that
        # of a round object of the standard size.
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


# JAX.


def jax_measured(latents: int, **settings: Any) -> Callable[..., Any]:
    def function(jax: Any, params: Any, images: Any) -> Any:
        def one(image: Any) -> Any:
            return moments(jax.numpy, jax.scipy.stats.norm.ppf, image, **settings)[:latents]

        return jax.vmap(one)(images)

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
    def function(jax: Any, params: Any, x: Any, mean: Any, log_variance: Any) -> Any:
        sd = jax.numpy.sqrt(jax.numpy.exp(log_variance) + floor)
        return -flat(jax.scipy.stats.norm.logpdf(x, mean, sd)).sum(1)

    return function


def jax_student_nll(degrees: float, floor: float) -> Callable[..., Any]:
    def function(
        jax: Any, params: Any, x: Any, mean: Any, log_variance: Any, skew: Any = 0.0
    ) -> Any:
        # Of T itself, not of T over its sd: moments as in Fernandez and Steel, eq. 5.
        first = 2 * math.sqrt(degrees) / ((degrees - 1) * special.beta(degrees / 2, 0.5))
        second = degrees / (degrees - 2)
        g = jax.numpy.exp(skew)
        own_mean = first * (g**2 - g**-2) / (g + 1 / g)
        own_variance = second * (g**3 + g**-3) / (g + 1 / g) - own_mean**2
        ratio = jax.numpy.sqrt(own_variance / (jax.numpy.exp(log_variance) + floor))
        y = own_mean + ratio * (x - mean)
        u = jax.numpy.where(y > 0, y / g, y * g)
        return -flat(
            jax.scipy.stats.t.logpdf(u, degrees) + jax.numpy.log(2 * ratio / (g + 1 / g))
        ).sum(1)

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
    return lambda jax, params, x: activation(jax, flat(x) @ params["weight"] + params["bias"])


def jax_convolution(
    stride: int = 1, pad: int = 0, activation: Callable[..., Any] = lambda jax, x: x
) -> Callable[..., Any]:
    def function(jax: Any, params: Any, x: Any) -> Any:
        y = jax.lax.conv_general_dilated(
            x,
            params["weight"],
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NCHW", "HWIO", "NCHW"),
        )
        return activation(jax, y + params["bias"][:, None, None])

    return function


def jax_deconvolution(
    kernel: int,
    stride: int = 1,
    pad: int = 0,
    more: Sequence[int] = (0, 0),
    activation: Callable[..., Any] = lambda jax, x: x,
) -> Callable[..., Any]:
    def function(jax: Any, params: Any, x: Any) -> Any:
        edge = kernel - 1 - pad
        y = jax.lax.conv_transpose(
            x,
            params["weight"][:, ::-1, ::-1],
            (stride, stride),
            [(edge, edge + extra) for extra in more],
            dimension_numbers=("NCHW", "IHWO", "NCHW"),
        )
        return activation(jax, y + params["bias"][:, None, None])

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
    logit = {"x": normal()}
    return [
        *gaussian,
        *student,
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

    return [
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
            jax_deconvolution(3),
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
            jax_deconvolution(3, 2, 1, (1, 0), NEURONS["relu"][1]),
        ),
        Case(
            "Deconvolution-wide",
            lambda: L.Deconvolution(
                "y", "x", channels=1, kernel=5, stride=3, pad=2, neuron="leaky_relu", bias=BIAS
            ),
            {"x": normal(2, 2, 3)},
            deconvolution((4, 7), 3, 2, leaky),
            jax_deconvolution(5, 3, 2, (0, 0), NEURONS["leaky_relu"][1]),
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
            jax_deconvolution(1, 3, 0, (2, 0), NEURONS["tanh"][1]),
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
    return [*transforms, *poses]


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
    *loss_cases(),
    *pose_cases(),
]

WITH_KERNELS = [
    *CASES,
    *(replace(c, id=f"{c.id}-kernels", kernels="auto") for c in CASES if c.has_kernels),
]
