"""Breaks between the steps of training; see layerkit.train.Trainer."""

from layerkit.train.base import Break
from layerkit.train.log import Log
from layerkit.train.progress import Call, Progress
from layerkit.train.saving import KeepBest, Snapshot
from layerkit.train.watching import EarlyStop, Plateau, Schedule, Validate

__all__ = [
    "Break",
    "Call",
    "EarlyStop",
    "KeepBest",
    "Log",
    "Plateau",
    "Progress",
    "Schedule",
    "Snapshot",
    "Validate",
]
