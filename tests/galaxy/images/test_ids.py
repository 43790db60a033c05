"""Ids of pictures: printable, and each its own."""

import os

from picture_files import encoded, pixels_of, tiff

from layerkit.galaxy.images.sources.sources import open_source


def test_names_of_any_bytes(rng, tmp_path):
    folder = tmp_path / "pile"
    folder.mkdir()
    for name in (b"caf\xe9.png", b"caf\xff.png", b"two\nlines.png"):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(encoded(pixels_of(rng, 8, 8)))
    source = open_source(folder)
    assert source.ids == ["caf\\xe9", "caf\\xff", "two\\nlines"]
    assert all(source.read(k).shape == (8, 8) for k in range(3))
    (tmp_path / "s[0001].png").write_bytes(encoded(pixels_of(rng, 8, 8)))
    (tmp_path / "s.tif").write_bytes(tiff(rng.normal(0, 1, (2, 8, 8)), photometric="minisblack"))
    ids = open_source(tmp_path).ids
    assert len(ids) == len(set(ids)) == 6
