"""The net of a run: read from its file or its snapshot, and told the size of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerkit import netfile
from layerkit.errors import DataError, NetFileError
from layerkit.galaxy.training.settings import Settings
from layerkit.layer import Layer

PAPERS_SIDE = 69  # pixels


def read_net(settings: Settings, saved: Mapping[str, Any], given: bool) -> tuple[list[Layer], str]:
    """Load the net: of a resumed run the one it began with, unless another is given.

    Args:
        settings: of the run.
        saved: the `extra` of the snapshot that a resumed run continues from; empty for a new run.
        given: whether the net was given, rather than taken over.

    Returns:
        the layers, and the text of the net file.

    Raises:
        NetFileError: see `load_net`.
    """
    file = Path(settings.net)
    text = saved.get("net_text")
    if given or not isinstance(text, str):
        text = netfile.read_net_file(file)
    else:
        try:
            changed = netfile.read_net_file(file) != text
        except NetFileError:
            changed = False
        if changed:
            print(
                f"{file} has changed since the run began, which continues with the net as it was; "
                "to take the new one give --net as well"
            )
    try:
        return netfile.layers_of(text, file, settings.net_values()), text
    except NetFileError as error:
        if file.exists():
            raise
        raise NetFileError(f"{error}; if the file has moved, give its new place with --net") from (
            error
        )


def picture_size(settings: Settings, known: Mapping[str, Any], pixels: int) -> int | None:
    """Return how many pixels galaxies have on a side: as the net takes them, else None to choose.

    The crops of the built-in picture have 12 pixels on a side, too few to look at: they stay
    enlarged to the paper's size.

    Args:
        settings: of the run.
        known: the settings that the net has, and their defaults.
        pixels: that the net takes, with the settings as given.

    Raises:
        DataError: a number of pixels that no square has.
    """
    open_settings = {"side", "pixels"} & known.keys() - settings.set.keys()
    if not open_settings:
        side = math.isqrt(pixels)
        if side * side != pixels:
            raise DataError(
                f"the net takes {pixels} pixels, and galaxies are square: {side * side} would be "
                f"{side} x {side}, and {(side + 1) ** 2} {side + 1} x {side + 1}; give it such a "
                "number, as --set pixels=N does where the net has that setting"
            )
        return side
    given = settings.net_values()
    for name, root in (("side", int), ("pixels", math.isqrt)):
        value = given.get(name)
        if isinstance(value, int) and value > 0:
            return root(value)
    return None if settings.data else PAPERS_SIDE


def size_settings(settings: Settings, known: Mapping[str, Any], side: int) -> dict[str, int]:
    """Return what tells the net the size of pictures, where it is not its default nor given."""
    names = {"side": side, "pixels": side * side}
    return {
        name: value
        for name, value in names.items()
        if name in known and name not in settings.set and known[name] != value
    }
