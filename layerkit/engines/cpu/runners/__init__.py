"""Runners: which kernels are called with which arrays, and which layer has which."""

from __future__ import annotations

from layerkit import layers as L
from layerkit.engines.cpu.runners import dense, elementwise, losses, pictures, windows
from layerkit.engines.cpu.runners.base import KernelRunner

RUNNERS: dict[type, type[KernelRunner]] = {
    L.Add: elementwise.Add, L.Concat: elementwise.Concat, L.Convolution: windows.Windowed,
    L.Deconvolution: windows.Deconvolution, L.Dense: dense.Dense, L.GaussianKL: losses.GaussianKL,
    L.GaussianReconstruction: losses.GaussianReconstruction, L.ImagePose: pictures.ImagePose,
    L.Input: elementwise.Input, L.MemoryData: pictures.MemoryData,
    L.Multiply: elementwise.Multiply, L.Reparameterize: elementwise.Reparameterize,
    L.Reshape: elementwise.Reshape, L.Slice: elementwise.Slice,
    L.SpatialTransform: pictures.SpatialTransform,
    L.StudentReconstruction: losses.StudentReconstruction,
}
