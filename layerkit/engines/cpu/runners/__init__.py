"""Runners: which kernels are called with which arrays, and which layer has which."""

from __future__ import annotations

from layerkit import layers as L
from layerkit.engines import activations, common
from layerkit.engines.base import EngineRunner
from layerkit.engines.cpu.runners import elementwise, formulas, losses
from layerkit.engines.cpu.runners.pictures import pictures, pooling, windows
from layerkit.engines.cpu.runners.weights import dense, lookup, normalization, recurrent

RUNNERS: dict[type, type[EngineRunner]] = {
    **dict.fromkeys(activations.SETTINGS, elementwise.Activation),
    **dict.fromkeys(formulas.ROWS, formulas.Formulas),
    **dict.fromkeys(losses.Pairs.kinds, losses.Pairs),
    L.Accuracy: losses.Accuracy,
    L.Add: formulas.Add,
    L.BatchNorm: normalization.BatchNorm,
    L.Concat: elementwise.Concat,
    L.ContrastiveLoss: losses.ContrastiveLoss,
    L.Convolution: windows.Windowed,
    L.Deconvolution: windows.Deconvolution,
    L.Dense: dense.Dense,
    L.Dropout: formulas.Dropout,
    L.Embed: lookup.Embed,
    L.GRU: recurrent.Recurrent,
    L.GroupNorm: normalization.Normalization,
    L.GaussianKL: losses.GaussianKL,
    L.GaussianReconstruction: losses.GaussianReconstruction,
    L.GlobalPooling: pooling.Pooling,
    L.ImagePose: pictures.ImagePose,
    L.Input: common.Input,
    L.LSTM: recurrent.Recurrent,
    L.LayerNorm: normalization.Normalization,
    L.MatMul: lookup.MatMul,
    L.MemoryData: pictures.MemoryData,
    L.Multiply: formulas.Multiply,
    L.Normal: elementwise.Normal,
    L.OneHot: lookup.OneHot,
    L.Permute: formulas.Permute,
    L.Pooling: pooling.Pooling,
    L.Reduce: formulas.Reduce,
    L.Reparameterize: elementwise.Reparameterize,
    L.Reshape: common.Reshape,
    L.Slice: elementwise.Slice,
    L.Softmax: losses.Softmax,
    L.SoftmaxLoss: losses.SoftmaxLoss,
    L.SpatialTransform: pictures.SpatialTransform,
    L.StudentReconstruction: losses.StudentReconstruction,
    L.TiedDense: dense.Dense,
}
