"""The built-in galaxies are those of the Hubble picture."""

import pickle
import socket

import numpy as np
import pytest
from skimage.data import hubble_deep_field

from layerkit.errors import DataError
from layerkit.galaxy.images.sources import hubble
from layerkit.galaxy.images.sources.sources import open_source


def test_built_in_galaxies_need_no_network(monkeypatch):
    def refuse(*args, **settings):
        raise AssertionError("a download")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    hubble._picture.cache_clear()
    source = pickle.loads(pickle.dumps(open_source(None)))
    assert len(source) > 500
    assert len(set(source.ids)) == len(source)
    picture = hubble_deep_field().mean(2) / 255
    for i in range(0, len(source), 50):
        row, column = (int(n) for n in source.ids[i].split("_")[1:])
        image = source.read(i)
        middle = image.shape[0] // 2
        corner = row - middle, column - middle
        matches = [
            np.abs(image - picture[y : y + image.shape[0], x : x + image.shape[1]]).max() < 1e-6
            for y in range(max(0, corner[0] - 1), corner[0] + 2)
            for x in range(max(0, corner[1] - 1), corner[1] + 2)
            if picture[y : y + image.shape[0], x : x + image.shape[1]].shape == image.shape
        ]
        assert sum(matches) == 1


def test_the_built_in_pictures_have_no_extensions():
    with pytest.raises(DataError, match=r"built-in .* no FITS extensions"):
        open_source(None, hdu=1)
