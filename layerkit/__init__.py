"""layerkit: neural nets layer by layer, every forward and backward pass in plain sight.

    import layerkit as lk
    from layerkit import layers as L

See README.md for a tour, `layerkit.layers` for the layers, `layerkit.galaxy` for the galaxy model.
"""

from layerkit import errors, initializers, layers, settings, snapshot
from layerkit.activity import Inactive, centre_biases, find_inactive
from layerkit.blob import Blob, Parameter
from layerkit.errors import LayerkitError
from layerkit.gradcheck import GradientReport, check_gradients
from layerkit.layer import Layer
from layerkit.loading import load
from layerkit.net import Net
from layerkit.netfile import load_net, net_settings, with_data
from layerkit.onnx import export_onnx
from layerkit.snapshot import save
from layerkit.solvers import SGD, Adam, AdamW, Nesterov, RMSProp, Solver, rates
from layerkit.tensors import load_safetensors, save_safetensors
from layerkit.train import Trainer, breaks
from layerkit.tuning import Tuning

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Blob",
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
