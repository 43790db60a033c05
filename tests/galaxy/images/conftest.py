"""Fixtures of the tests of galaxy images."""

import zipfile

import pytest

from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.sources.sources import open_source


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """The path of a set of built-in galaxies; tests leave it as it is."""
    path = tmp_path_factory.mktemp("prepared") / "hubble.h5"
    prepare(open_source(None), path, progress=False, limit=120)
    return path


@pytest.fixture
def zipped(tmp_path):
    """Writes a zip of (name, content) pairs, and returns its path."""

    def write(entries):
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries:
                archive.writestr(name, content)
        return path

    return write
