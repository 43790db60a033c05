"""layerkit: neural nets layer by layer, every forward and backward pass in plain sight.

    import layerkit as lk
    from layerkit import layers as L

See README.md for a tour, `layerkit.layers` for the layers, `layerkit.galaxy` for the galaxy model.
"""

from layerkit import distributed, errors, initializers, layers, settings
from layerkit.blob import Blob, Parameter
from layerkit.distributed import Distributed
from layerkit.errors import LayerkitError
from layerkit.inspection.activity import Inactive, centre_biases, find_inactive
from layerkit.inspection.gradcheck import GradientReport, check_gradients
from layerkit.layer import Layer
from layerkit.net import Net
from layerkit.netfile import load_net, net_settings, with_data
from layerkit.saving import snapshot
from layerkit.saving.loading import load
from layerkit.saving.onnx import export_onnx
from layerkit.saving.snapshot import save
from layerkit.saving.tensors import load_safetensors, save_safetensors
from layerkit.settings.tuning import Tuning
from layerkit.solvers import SGD, Adam, AdamW, Nesterov, RMSProp, Solver, rates
from layerkit.train import Trainer, breaks

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Blob",
    "Distributed",
    "GradientReport",
    "Inactive",
    "Layer",
    "LayerkitError",
    "Nesterov",
    "Net",
    "Parameter",
    "RMSProp",
    "Solver",
    "Trainer",
    "Tuning",
    "breaks",
    "centre_biases",
    "check_gradients",
    "distributed",
    "errors",
    "export_onnx",
    "find_inactive",
    "initializers",
    "layers",
    "load",
    "load_net",
    "load_safetensors",
    "net_settings",
    "rates",
    "save",
    "save_safetensors",
    "settings",
    "snapshot",
    "with_data",
]
