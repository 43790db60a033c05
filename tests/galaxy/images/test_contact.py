"""Contact sheets show what was kept and what was excluded."""

import numpy as np
import pytest
from PIL import Image

from layerkit.errors import DataError
from layerkit.galaxy.images.prepare.contact import TILE, YELLOW, contact_sheets
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
