"""Contact sheets show what was kept and what was excluded."""

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from layerkit.errors import DataError
from layerkit.galaxy.images.prepare.contact import GAP, TILE, YELLOW, contact_sheets
from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.prepared import load
from layerkit.galaxy.images.sources.sources import open_source


def test_contact_sheets(prepared, tmp_path):
    galaxies, source = load(prepared), open_source(None)
    paths = contact_sheets(galaxies, tmp_path / "sheets", source, rows=2, columns=3)
    names = {"kept", "kept-crops"} | {
        f"excluded-{reason.replace(' ', '-')}" for reason in galaxies.excluded_counts
    }
    assert {p.stem for p in paths} == names
    sheets = {p.stem: np.asarray(Image.open(p)) for p in paths}
    assert sheets["kept"].shape == sheets["kept-crops"].shape
    assert not (sheets["kept"] == YELLOW).all(2).any()
    tile = (sheets["kept-crops"][:TILE, :TILE] == YELLOW).all(2)
    rows, columns = np.flatnonzero(tile.any(1)), np.flatnonzero(tile.any(0))
    assert abs(rows.mean() - TILE / 2) < 0.1 * TILE  # a square, about the middle
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 2
    again = contact_sheets(galaxies, tmp_path / "again", source, rows=2, columns=3)
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(paths, again, strict=True))
    assert [p.stem for p in contact_sheets(galaxies, tmp_path / "set alone")] == ["kept"]
    source.name = "another"
    with pytest.raises(DataError, match="not another"):
        contact_sheets(galaxies, tmp_path, source)
    with pytest.raises(DataError, match="cannot be written"):
        contact_sheets(galaxies, prepared / "sheets")


def test_sheets_of_linear_units_show_what_is_beyond_black_and_white(tmp_path, rng):
    """Noise far below the sky, and a cosmic ray, which is all of a picture that is far above 1."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    y, x = np.mgrid[:96, :96] - 47.5
    for k in range(3):
        light = 364 * np.exp(-np.hypot(x, y / 0.7) / 5)
        picture = light + 100 + rng.normal(size=light.shape) * (50 if k == 1 else 5)
        picture[52, 60] += 3000 * (k == 2)
        fits.writeto(folder / f"g{k}.fits", picture)
    source = open_source(folder)
    options = {"units": "linear", "workers": 1, "progress": False, "threshold": 2}
    prepare(source, tmp_path / "g.h5", **options)
    galaxies = load(tmp_path / "g.h5")
    assert len(galaxies) == 3
    assert galaxies.images.min() < -0.25
    assert galaxies.images.max() > 1.25
    paths = contact_sheets(galaxies, tmp_path / "sheets", source, rows=1, columns=3)
    assert [path.stem for path in paths] == ["kept", "kept-crops"]
    sheet = np.asarray(Image.open(paths[0]).convert("L"))
    for k, i in enumerate(np.random.default_rng(0).permutation(3)):
        tile = sheet[:TILE, k * (TILE + GAP) :][:, :TILE].astype(int)
        wanted = Image.fromarray(np.uint8(255 * np.clip(galaxies.images[i][::-1], 0, 1)))
        np.testing.assert_allclose(tile, np.asarray(wanted.resize((TILE, TILE))), atol=1)
