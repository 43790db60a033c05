"""Layers, one file each: a layer takes its name, its bottoms, and settings by keyword."""

from layerkit.layers.accuracy import Accuracy
from layerkit.layers.add import Add
from layerkit.layers.binary_cross_entropy import BinaryCrossEntropy
from layerkit.layers.concat import Concat
from layerkit.layers.convolution import Convolution, Deconvolution
from layerkit.layers.dense import Dense
from layerkit.layers.dropout import Dropout
from layerkit.layers.elu import ELU
from layerkit.layers.exponential import Exponential
from layerkit.layers.gaussian_kl import GaussianKL
from layerkit.layers.gaussian_reconstruction import GaussianReconstruction
from layerkit.layers.hdf5_data import HDF5Data
from layerkit.layers.image_pose import ImagePose
from layerkit.layers.input import Input
from layerkit.layers.leaky_relu import LeakyReLU
from layerkit.layers.memory_data import MemoryData
from layerkit.layers.multiply import Multiply
from layerkit.layers.relu import ReLU
from layerkit.layers.reparameterize import Reparameterize
from layerkit.layers.reshape import Reshape
from layerkit.layers.sigmoid import Sigmoid
from layerkit.layers.slice import Slice
from layerkit.layers.softmax_loss import SoftmaxLoss
from layerkit.layers.softplus import Softplus
from layerkit.layers.spatial_transform import SpatialTransform
from layerkit.layers.square_loss import SquareLoss
from layerkit.layers.student_reconstruction import StudentReconstruction
from layerkit.layers.tanh import Tanh
from layerkit.layers.tied_dense import TiedDense

__all__ = [
    "ELU",
    "Accuracy",
    "Add",
    "BinaryCrossEntropy",
    "Concat",
    "Convolution",
    "Deconvolution",
    "Dense",
    "Dropout",
    "Exponential",
    "GaussianKL",
    "GaussianReconstruction",
    "HDF5Data",
    "ImagePose",
    "Input",
    "LeakyReLU",
    "MemoryData",
    "Multiply",
    "ReLU",
    "Reparameterize",
    "Reshape",
    "Sigmoid",
    "Slice",
    "SoftmaxLoss",
    "Softplus",
    "SpatialTransform",
    "SquareLoss",
    "StudentReconstruction",
    "Tanh",
    "TiedDense",
]
