"""Breaks between the steps of training; see layerkit.train.Trainer."""

from layerkit.train.breaks.base import Break
from layerkit.train.breaks.log import Log
from layerkit.train.breaks.progress import Call, Progress
from layerkit.train.breaks.saving import KeepBest, Snapshot
from layerkit.train.breaks.watching import EarlyStop, Plateau, Schedule, Validate

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
