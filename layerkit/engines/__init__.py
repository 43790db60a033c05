"""Engines: how a net runs, by array code or by faster code; `choose` finds the one for a net."""

from __future__ import annotations

import numpy as np

from layerkit.backends import Backend
from layerkit.engines import cpu, cuda
from layerkit.engines.base import ArrayEngine


def choose(backend: Backend, dtype: np.dtype, kernels: str) -> ArrayEngine:
    """Return the engine for a net.

    Args:
        backend: that of the net.
        dtype: of the net.
        kernels: "auto" for the fastest that this computer has, "array" for array code.
    """
    if kernels == "auto" and backend.name == "cupy":
        return cuda.CudaEngine(backend, dtype)
    fast = cpu.engine() if kernels == "auto" else None
    return fast or ArrayEngine(backend.xp)
