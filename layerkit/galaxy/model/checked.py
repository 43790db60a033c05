"""A check that every function makes that takes a model."""

from __future__ import annotations

from typing import Any

from layerkit.errors import NetError, brief
from layerkit.galaxy.model.model import GalaxyModel


def checked_model(model: Any, function: str) -> GalaxyModel:
    """Return a model, if it is one.

    Raises:
        NetError: it is something else; the message names the function that was called.
    """
    if not isinstance(model, GalaxyModel):
        raise NetError(f"{function}: expected a GalaxyModel, got {brief(model)}")
    return model
