"""Layers, a file for each or for a few relatives: a name, bottoms, and settings by keyword."""

from layerkit.layers.elementwise.activations import (
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
from layerkit.layers.elementwise.arithmetic import Add, Affine, Divide, MatMul, Multiply, Subtract
from layerkit.layers.elementwise.dropout import Dropout
from layerkit.layers.elementwise.noise import Normal, Reparameterize
from layerkit.layers.likelihoods.binary_cross_entropy import BinaryCrossEntropy
from layerkit.layers.likelihoods.gaussian_kl import GaussianKL
from layerkit.layers.likelihoods.gaussian_reconstruction import GaussianReconstruction
from layerkit.layers.likelihoods.known_noise import (
    KnownVarianceReconstruction,
    PoissonReconstruction,
)
from layerkit.layers.likelihoods.student_reconstruction import StudentReconstruction
from layerkit.layers.losses.accuracy import Accuracy
from layerkit.layers.losses.distances import HuberLoss, SquareLoss
from layerkit.layers.losses.margins import ContrastiveLoss, HingeLoss
from layerkit.layers.losses.softmax import Softmax, SoftmaxLoss
from layerkit.layers.pictures.convolution import Convolution, Deconvolution
from layerkit.layers.pictures.image_pose import ImagePose
from layerkit.layers.pictures.pooling import GlobalPooling, Pooling
from layerkit.layers.pictures.spatial_transform import SpatialTransform, Taper
from layerkit.layers.shapes.reduce import Reduce
from layerkit.layers.shapes.shapes import Concat, Permute, Reshape, Slice
from layerkit.layers.sky.convolve_psf import ConvolvePSF
from layerkit.layers.sky.normalise import Normalise
from layerkit.layers.sky.place_sources import CutSources, PlaceSources
from layerkit.layers.sources.generator_data import GeneratorData
from layerkit.layers.sources.hdf5_data import HDF5Data
from layerkit.layers.sources.image_data import ImageData
from layerkit.layers.sources.input import Input
from layerkit.layers.sources.memory_data import MemoryData
from layerkit.layers.weights.dense import Dense
from layerkit.layers.weights.lookup import Embed, OneHot
from layerkit.layers.weights.normalization import BatchNorm, GroupNorm, LayerNorm
from layerkit.layers.weights.recurrent import GRU, LSTM
from layerkit.layers.weights.tied_dense import TiedDense

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
    "ConvolvePSF",
    "CutSources",
    "Deconvolution",
    "Dense",
    "Divide",
    "Dropout",
    "Embed",
    "Exponential",
    "GaussianKL",
    "GaussianReconstruction",
    "GeneratorData",
    "GlobalPooling",
    "GroupNorm",
    "HDF5Data",
    "HingeLoss",
    "HuberLoss",
    "ImageData",
    "ImagePose",
    "Input",
    "KnownVarianceReconstruction",
    "LayerNorm",
    "LeakyReLU",
    "MatMul",
    "MemoryData",
    "Multiply",
    "Normal",
    "Normalise",
    "OneHot",
    "PReLU",
    "Permute",
    "PlaceSources",
    "PoissonReconstruction",
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
    "Taper",
    "TiedDense",
]
