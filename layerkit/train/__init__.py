"""Training as a library: `Trainer` makes the steps of a solver, and breaks do all the rest."""

from layerkit.train import breaks
from layerkit.train.trainer import Trainer

__all__ = ["Trainer", "breaks"]
