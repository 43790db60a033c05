"""Fixtures of the tests of catalogues."""

import shutil

import numpy as np
import pytest
from linear_galaxies import save_run, shapes, write_pictures


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder of pictures, a run that was trained on them, and what is known of both."""
    rng = np.random.default_rng(7)
    folder = tmp_path_factory.mktemp("catalogue")
    truth = shapes(rng, 60)
    names = write_pictures(rng, folder / "pictures", truth)
    galaxies, temperature = save_run(folder, folder / "run", folder / "pictures", "20")
    (folder / "linear.py").unlink()  # the run holds its text
    return {
        "folder": folder, "truth": truth, "names": names, "galaxies": galaxies,
        "temperature": temperature, "pictures": folder / "pictures", "run": folder / "run",
    }  # fmt: skip


@pytest.fixture
def run_copy(shared, tmp_path):
    """A copy of the run, to be spoilt."""
    return shutil.copytree(shared["run"], tmp_path / "run")
