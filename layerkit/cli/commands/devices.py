"""`layerkit devices`: what nets can run on here."""

from __future__ import annotations

import argparse
import platform
from typing import Any

import numpy as np

from layerkit import backends, engines
from layerkit.errors import BackendError


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "devices",
        help="what nets can run on here",
        description="Print what nets can run on here: the processor and the instructions that its "
        "compiled kernels use, and the GPU or why there is none.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print a line for each device."""
    cpu = engines.choose(backends.get("numpy"), np.dtype("float32"), "auto")
    print(f"numpy  {platform.machine()}, {cpu.describe()}")
    try:
        gpu = backends.get("cupy")
    except BackendError as error:
        print(f"cupy   {str(error).removeprefix('backend cupy: ')}")
        return
    properties = gpu.xp.cuda.runtime.getDeviceProperties(gpu.xp.cuda.Device().id)
    name, memory = properties["name"].decode(), properties["totalGlobalMem"] / 2**30
    print(f"cupy   {name}, {memory:.0f} GiB, CuPy {gpu.xp.__version__}")
