"""Runners: which kernels are launched with which arrays, and which layer has which."""

from __future__ import annotations

from typing import Any

from layerkit import layers as L
from layerkit.engines import activations, common
from layerkit.engines.base import EngineRunner, Runner
from layerkit.engines.cuda.runners import dense, elementwise, losses, normalization, recurrent
from layerkit.engines.cuda.runners.base import ArrayRunner
from layerkit.engines.cuda.runners.data import DataRunner, ResidentData
from layerkit.engines.cuda.runners.pictures import pictures, pooling, windows
from layerkit.layer import Layer, overrides
from layerkit.layers.sources.data import Data

RUNNERS: dict[type, type[EngineRunner]] = {
    **dict.fromkeys(activations.SETTINGS, elementwise.Elementwise),
    L.Accuracy: losses.Accuracy,
    L.Add: elementwise.Add,
    L.BatchNorm: normalization.BatchNorm,
    L.BinaryCrossEntropy: losses.BinaryCrossEntropy,
    L.Concat: elementwise.Concat,
    L.Convolution: windows.Convolution,
    L.Deconvolution: windows.Deconvolution,
    L.Dense: dense.Dense,
    L.Dropout: elementwise.Dropout,
    L.GRU: recurrent.GRU,
    L.GaussianKL: losses.GaussianKL,
    L.GaussianReconstruction: losses.GaussianReconstruction,
    L.GlobalPooling: pooling.Pooling,
    L.GroupNorm: normalization.Normalization,
    L.HuberLoss: losses.HuberLoss,
    L.ImagePose: pictures.ImagePose,
    L.Input: common.Input,
    L.LSTM: recurrent.LSTM,
    L.LayerNorm: normalization.Normalization,
    L.MatMul: dense.MatMul,
    L.Multiply: elementwise.Multiply,
    L.Normal: elementwise.Normal,
    L.Pooling: pooling.Pooling,
    L.Reparameterize: elementwise.Reparameterize,
    L.Reshape: common.Reshape,
    L.Slice: elementwise.Slice,
    L.SoftmaxLoss: losses.SoftmaxLoss,
    L.SpatialTransform: pictures.SpatialTransform,
    L.SquareLoss: losses.SquareLoss,
    L.StudentReconstruction: losses.StudentReconstruction,
    L.Taper: elementwise.Taper,
    L.TiedDense: dense.TiedDense,
}


def make_runner(layer: Layer, engine: Any) -> Runner:
    """Return the runner registered for exactly this class, or the layer with its array code.

    Data layers of a user's own class are fed batch by batch where they can be: where `forward` is
    that of Data, `host` gives in the computer's own memory what `fetch` gives on the backend, and
    pictures are not cut or standardised.
    """
    own = type(layer)
    if isinstance(layer, Data):
        if own is L.MemoryData and layer.plain and ResidentData.fits(layer, engine):
            return ResidentData(layer, engine)
        fed = layer.plain and own.forward is Data.forward and overrides(own, "host", ("fetch",))
        return DataRunner(layer, engine) if fed else ArrayRunner(layer)
    make = RUNNERS.get(own)
    return make(layer, engine) if make and make.takes(layer, engine) else ArrayRunner(layer)
