"""Layers, a file for each or for a few relatives: a name, bottoms, and settings by keyword."""

from layerkit.layers.accuracy import Accuracy
from layerkit.layers.activations import (
    ELU,
    GELU,
    Exponential,
    LeakyReLU,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from layerkit.layers.arithmetic import Add, Affine, Divide, MatMul, Multiply, Subtract
from layerkit.layers.binary_cross_entropy import BinaryCrossEntropy
from layerkit.layers.convolution import Convolution, Deconvolution
from layerkit.layers.dense import Dense
from layerkit.layers.distances import HuberLoss, SquareLoss
from layerkit.layers.dropout import Dropout
from layerkit.layers.gaussian_kl import GaussianKL
from layerkit.layers.gaussian_reconstruction import GaussianReconstruction
from layerkit.layers.hdf5_data import HDF5Data
from layerkit.layers.image_pose import ImagePose
from layerkit.layers.input import Input
from layerkit.layers.lookup import Embed, OneHot
from layerkit.layers.margins import ContrastiveLoss, HingeLoss
from layerkit.layers.memory_data import MemoryData
from layerkit.layers.noise import Normal, Reparameterize
from layerkit.layers.normalization import BatchNorm, GroupNorm, LayerNorm
from layerkit.layers.pooling import GlobalPooling, Pooling
from layerkit.layers.recurrent import GRU, LSTM
from layerkit.layers.reduce import Reduce
from layerkit.layers.shapes import Concat, Permute, Reshape, Slice
from layerkit.layers.softmax import Softmax, SoftmaxLoss
from layerkit.layers.spatial_transform import SpatialTransform
from layerkit.layers.student_reconstruction import StudentReconstruction
from layerkit.layers.tied_dense import TiedDense

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "Accuracy",
    "Add",
    "Affine",
    "BatchNorm",
    "BinaryCrossEntropy",
    "Concat",
    "ContrastiveLoss",
    "Convolution",
    "Deconvolution",
    "Dense",
    "Divide",
    "Dropout",
    "Embed",
    "Exponential",
    "GaussianKL",
    "GaussianReconstruction",
    "GlobalPooling",
    "GroupNorm",
    "HDF5Data",
    "HingeLoss",
    "HuberLoss",
    "ImagePose",
    "Input",
    "LayerNorm",
    "LeakyReLU",
    "MatMul",
    "MemoryData",
    "Multiply",
    "Normal",
    "OneHot",
    "PReLU",
    "Permute",
    "Pooling",
    "ReLU",
    "Reduce",
    "Reparameterize",
    "Reshape",
    "SiLU",
    "Sigmoid",
    "Slice",
    "Softmax",
    "SoftmaxLoss",
    "Softplus",
    "SpatialTransform",
    "SquareLoss",
    "StudentReconstruction",
    "Subtract",
    "Tanh",
    "TiedDense",
]
