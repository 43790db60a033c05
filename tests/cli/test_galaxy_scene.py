"""`layerkit galaxy scene`: files in, files out, and errors in one line."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from layerkit.galaxy.scene.images.psf import gaussian
from layerkit.system import locks


@pytest.fixture
def field(rng, tmp_path):
    """A FITS file with one star of flux 500 at (21, 18), noise 1, and a PSF beside it."""
    image = rng.normal(size=(40, 44))
    image[6:31, 9:34] += 500 * gaussian(3.5)
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 22, "CRPIX2": 19})
    header.update(CRVAL1=150.0, CRVAL2=2.0, CDELT1=-1e-4, CDELT2=1e-4)
    fits.PrimaryHDU(image, header).writeto(tmp_path / "field.fits")
    np.save(tmp_path / "psf.npy", gaussian(3.5))
    return tmp_path


def test_star_is_found(field, layerkit):
    code, out, err = layerkit(
        "galaxy", "scene", field / "field.fits", "--psf", field / "psf.npy", "--out", field / "out"
    )
    assert (code, err) == (0, "")
    assert "1 sources" in out
    (row,) = Table.read(field / "out" / "catalogue.fits")
    assert abs(row["x"] - 21) < 5 * row["x_err"] < 0.5
    assert abs(row["flux"] - 500) < 5 * row["flux_err"] < 100
    assert row["ra"] == pytest.approx(150, abs=1e-5)
    assert row["p_star"] > 0.5
    assert (field / "out" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.fits"], "no such file"),
        (["field.fits", "--psf", "field.fits"], "expected a PSF of shape"),
        (["field.fits", "--variance", "psf.npy"], "the variance has shape"),
        (["field.fits", "--out", "psf.npy"], "psf.npy: a file; give a folder"),
    ],
)
def test_errors_are_one_line(field, layerkit, words, message):
    words = [w if w.startswith("--") else field / w for w in words]
    code, _, err = layerkit("galaxy", "scene", "--out", field / "out", *words)
    assert code != 0
    assert message in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["model.fits", "residual.fits"])
def test_no_image_that_is_read_is_written_over(name, field, layerkit):
    (field / "field.fits").rename(field / name)
    before = (field / name).read_bytes()
    code, _, err = layerkit("galaxy", "scene", field / name, "--out", field)
    assert code == 2
    assert f"{name}: the file that IMAGE names; write another" in err
    (field / "run").mkdir()
    (field / "run" / "metrics.json").write_text("{}")
    code, _, err = layerkit("galaxy", "scene", field / name, "--out", field / "run")
    assert code == 2
    assert "run: the folder of a training run; write to another" in err
    assert (field / name).read_bytes() == before


def test_results_go_into_no_folder_with_others_of_such_names(field, layerkit):
    words = ["galaxy", "scene", field / "field.fits", "--psf", field / "psf.npy", "--out"]
    (field / "own").mkdir()
    (field / "own" / "catalogue.fits").write_bytes(b"years of work")
    code, _, err = layerkit(*words, field / "own")
    assert code == 2
    assert "own: catalogue.fits is there, and no report.html of a field; write to another" in err
    assert (field / "own" / "catalogue.fits").read_bytes() == b"years of work"
    for _ in range(2):  # its own results are written again
        assert layerkit(*words, field / "out")[0] == 0


def test_two_runs_do_not_write_into_one_folder(field, layerkit):
    words = ["galaxy", "scene", field / "field.fits", "--psf", field / "psf.npy", "--out"]
    with locks.lock(field / "out", "a measurement of a field"):
        code, _, err = layerkit(*words, field / "out")
    assert code == 2
    assert "out is in use by a measurement of a field (process" in err
    assert not (field / "out" / "report.html").exists()


def test_an_extension_is_chosen(field, layerkit):
    image = fits.getdata(field / "field.fits")
    images = [fits.ImageHDU(image, name=n) for n in ("A", "B")]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(field / "two.fits")
    words = ["galaxy", "scene", field / "two.fits", "--psf", field / "psf.npy", "--out"]
    code, _, err = layerkit(*words, field / "out")
    assert code == 2
    assert "2 images, in extensions 1, 2; choose one with --hdu" in err
    assert layerkit(*words, field / "out", "--hdu", "B")[0] == 0


@pytest.mark.parametrize("bits", ["abc", "-1", "1.5", "0x1_ffff_ffff_ffff_ffff"])
def test_bits_that_are_none_are_told(bits, layerkit):
    code, _, err = layerkit("galaxy", "scene", f"--mask-bits={bits}", "--out", "out")
    assert code == 2
    assert (
        f"--mask-bits: must be a whole number from 0 to 2**63 - 1, such as 11 or 0xb, got {bits!r}"
        in err
    )


def test_resume_can_be_switched_off_before_a_file(field, layerkit):
    (field / "on.toml").write_text("resume = true\n")
    words = ["galaxy", "scene", field / "field.fits", "--psf", field / "psf.npy", "--out", "out"]
    code, _, err = layerkit(*words, "--config", "on.toml", "--no-resume")
    assert (code, err) == (0, "")
