"""Solvers: rules that update parameters by their gradients."""

from layerkit.solvers import rates
from layerkit.solvers.adam import Adam, AdamW
from layerkit.solvers.rmsprop import RMSProp
from layerkit.solvers.sgd import SGD, Nesterov
from layerkit.solvers.solver import Solver

__all__ = ["SGD", "Adam", "AdamW", "Nesterov", "RMSProp", "Solver", "rates"]
