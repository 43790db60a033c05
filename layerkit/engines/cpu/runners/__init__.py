"""Runners: which kernels are called with which arrays, and which layer has which."""

from __future__ import annotations

from layerkit import layers as L
from layerkit.engines import activations, common
from layerkit.engines.base import EngineRunner
from layerkit.engines.cpu.runners import elementwise, losses
from layerkit.engines.cpu.runners.pictures import pictures, pooling, windows
from layerkit.engines.cpu.runners.weights import dense, normalization, recurrent

RUNNERS: dict[type, type[EngineRunner]] = {
    **dict.fromkeys(activations.SETTINGS, elementwise.Activation),
    L.Add: common.Add,
    L.BatchNorm: normalization.BatchNorm,
    L.Concat: elementwise.Concat,
    L.Convolution: windows.Windowed,
    L.Deconvolution: windows.Deconvolution,
    L.Dense: dense.Dense,
    L.GRU: recurrent.Recurrent,
    L.GroupNorm: normalization.Normalization,
    L.GaussianKL: losses.GaussianKL,
    L.GaussianReconstruction: losses.GaussianReconstruction,
    L.GlobalPooling: pooling.Pooling,
    L.ImagePose: pictures.ImagePose,
    L.Input: common.Input,
    L.LSTM: recurrent.Recurrent,
    L.LayerNorm: normalization.Normalization,
    L.MemoryData: pictures.MemoryData,
    L.Multiply: common.Multiply,
    L.Normal: elementwise.Normal,
    L.Pooling: pooling.Pooling,
    L.Reparameterize: elementwise.Reparameterize,
    L.Reshape: common.Reshape,
    L.Slice: elementwise.Slice,
    L.SpatialTransform: pictures.SpatialTransform,
    L.StudentReconstruction: losses.StudentReconstruction,
    L.TiedDense: dense.Dense,
}
