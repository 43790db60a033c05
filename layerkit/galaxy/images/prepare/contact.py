"""Contact sheets, which show at a glance what was kept and what was excluded."""

import contextlib
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from layerkit.errors import DataError
from layerkit.galaxy.images.crop.crop import visible
from layerkit.galaxy.images.decode.pixels import as_picture
from layerkit.galaxy.images.prepared import GalaxySet
from layerkit.galaxy.images.sources.sources import Source
from layerkit.settings import fitting

KEPT = "kept.png"  # the first sheet
TILE = 138  # pixels on a side: twice 69
GAP = 4
YELLOW = (255, 200, 0)


@fitting(DataError)
def contact_sheets(
    galaxies: GalaxySet,
    folder: str | os.PathLike,
    source: Source | None = None,
    *,
    rows: int = 6,
    columns: int = 10,
    seed: int = 0,
) -> list[Path]:
    """Draw contact sheets of randomly chosen galaxies.

    `kept.png` shows prepared galaxies, as the model sees them.  Given the source, `kept-crops.png`
    shows whole pictures with the square that was cut, and `excluded-REASON.png` the pictures that
    were excluded for each reason; a picture that cannot be read is a black tile.

    Args:
        galaxies: the prepared set.
        folder: where the sheets are written.
        source: the pictures from which the set was prepared.
        rows, columns: of tiles on a sheet, default 6 and 10.
        seed: of the random choice, default 0.

    Returns:
        The paths of the sheets.

    Raises:
        DataError: the sheets cannot be written, or the set was prepared from another source.
    """
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    count = rows * columns
    sheets: dict[str, list[Image.Image]] = {}
    chosen = rng.permutation(len(galaxies))[:count]
    order = galaxies.row_order
    sheets["kept"] = [_tile(visible(np.ma.filled(galaxies.images[i], 0)), order) for i in chosen]
    if source is not None:
        number = {name: i for i, name in enumerate(source.ids)}
        needed = {*galaxies.ids, *galaxies.excluded}
        if galaxies.source != source.name or not needed <= number.keys():
            raise DataError(f"{galaxies.path}: prepared from {galaxies.source}, not {source.name}")
        sheets["kept-crops"] = [
            _tile(_read(source, number[galaxies.ids[i]]), order, tuple(galaxies.crops[i]))
            for i in chosen
        ]
        for reason in galaxies.excluded_counts:
            names = [name for name, why in galaxies.excluded.items() if why == reason]
            picked = [names[i] for i in rng.permutation(len(names))[:count]]
            sheets[f"excluded-{reason.replace(' ', '-')}"] = [
                _readable_tile(source, number[name], order) for name in picked
            ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for name, tiles in sheets.items():
            paths.append(folder / f"{name}.png")
            _mosaic(tiles, columns).save(paths[-1])
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return paths


def remove_sheets(folder: Path) -> None:
    """Remove the sheets in a folder, and the folder unless something else is in it."""
    for name in (KEPT, "kept-crops.png", "excluded-*.png"):
        for path in folder.glob(name):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _tile(
    image: np.ndarray, row_order: str, crop: tuple[float, float, float] | None = None
) -> Image.Image:
    """Resize a picture in 0..1 to fit a tile, and draw the outline of its crop."""
    scale = TILE / max(image.shape)
    height, width = (max(1, round(n * scale)) for n in image.shape)
    grey = (255 * image).astype(np.uint8)
    picture = Image.fromarray(grey).resize((width, height)).convert("RGB")
    if crop is not None:
        y0, x0, side = (scale * c for c in crop)
        ImageDraw.Draw(picture).rectangle((x0, y0, x0 + side - 1, y0 + side - 1), outline=YELLOW)
    if row_order == "bottom":
        return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return picture


def _read(source: Source, i: int) -> np.ndarray:
    """Return a whole picture of a source as it is displayed, in 0..1."""
    return visible(as_picture(source.read(i)))


def _readable_tile(source: Source, i: int, row_order: str) -> Image.Image:
    try:
        return _tile(_read(source, i), row_order)
    except Exception:  # which may be why it was excluded
        return Image.new("RGB", (TILE, TILE))


def _mosaic(tiles: list[Image.Image], columns: int) -> Image.Image:
    rows = -(-len(tiles) // columns)
    columns = min(columns, len(tiles))
    step = TILE + GAP
    sheet = Image.new("RGB", (columns * step - GAP, rows * step - GAP), "white")
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (k % columns * step, k // columns * step))
    return sheet
