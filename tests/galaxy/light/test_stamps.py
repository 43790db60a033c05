"""examples/simulate_galaxies.py and, on what it writes, galaxy_light.py and galaxy_profile.py."""

import re
import runpy
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from layerkit.galaxy.scene.model.learned import learned_light

pytest.importorskip("galsim", reason="stamps are GalSim's: pip install galsim")

FOLDER = Path(__file__).resolve().parents[3] / "examples"


def run(monkeypatch, capsys, name, *arguments):
    path = str(FOLDER / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(path, run_name="__main__")
    return ended.value.code, *capsys.readouterr()


def simulated(path, count):
    runpy.run_path(str(FOLDER / "simulate_galaxies.py"))["simulate"](path, count, 0)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("stamps") / "stamps.h5", 60)


@pytest.fixture
def stamps(path):
    with h5py.File(path) as file:
        arrays = {name: file[name][:] for name in ("image", "psf", "variance", "mask")}
        return {**arrays, **{name: file["truth"][name][:] for name in file["truth"]}}


def test_noise_is_that_of_the_variance(stamps):
    corner = np.s_[:, :8, :8]
    good = stamps["mask"][corner] == 0
    r = stamps["image"][corner] / np.sqrt(stamps["variance"][corner])
    assert np.mean(r[good] ** 2) == pytest.approx(1, abs=0.1)
    assert stamps["image"].dtype == stamps["variance"].dtype == stamps["psf"].dtype == "float32"


def test_pixels_to_leave_out_are_wrong_in_some_stamps(stamps):
    masked = (stamps["mask"] > 0).any(axis=(1, 2))
    assert 0.1 < masked.mean() < 0.6
    r = stamps["image"] / np.sqrt(stamps["variance"])
    assert r[stamps["mask"] > 0].min() > 50


def test_light_has_the_flux_and_the_place_of_the_truth(stamps):
    """The variance holds the light itself, without noise, as electrons that arrive by chance."""
    light = 40 * (stamps["variance"] - stamps["sky_deviation"][:, None, None] ** 2)
    y, x = np.mgrid[:45, :45] - 22
    total = light.sum(axis=(1, 2))
    inside = total / stamps["flux"]
    assert np.median(inside) > 0.98
    assert 0.8 < inside.min() <= inside.max() < 1.01
    for name, grid in (("x", x), ("y", y)):
        found = (light * grid).sum(axis=(1, 2)) / total
        assert np.corrcoef(found, stamps[name])[0, 1] > 0.9


def test_psfs_have_unit_sum_and_the_width_of_the_truth(stamps):
    np.testing.assert_allclose(stamps["psf"].sum(axis=(1, 2)), 1, rtol=1e-5)
    half = stamps["psf"].max(axis=(1, 2), keepdims=True) / 2
    width = 0.2 * np.sqrt((stamps["psf"] > half).sum(axis=(1, 2)) * 4 / np.pi)
    np.testing.assert_allclose(width, stamps["psf_fwhm"], rtol=0.15)


def test_a_row_depends_on_the_seed_and_its_number_alone(path, tmp_path, monkeypatch, capsys):
    found = {}
    for seed in (0, 1):
        out = tmp_path / f"{seed}.h5"
        status, printed, _ = run(
            monkeypatch, capsys, "simulate_galaxies", "--out", out, "--count", 3, "--seed", seed
        )
        assert (status, printed) == (0, f"3 stamps written to {out}\n")
        with h5py.File(out) as file:
            found[seed] = file["image"][:]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(found[0], file["image"][:3])
    assert not np.array_equal(found[0], found[1])
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "nowhere/stamps.h5"], "no folder nowhere"),
        (["--out", "stamps.h5", "--count", "0"], "--count must be at least 1, got 0"),
        (["--out", "stamps.h5", "--seed", "-1"], "--seed must be at least 0, got -1"),
    ],
)
def test_bad_arguments_get_one_line(arguments, says, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(monkeypatch, capsys, "simulate_galaxies", *arguments)
    assert status == 2
    assert says in err
    assert err.count("\n") == 1


# Training on them.


def write_fits(path, arrays):
    fits = pytest.importorskip("astropy.io.fits")
    hdus = [fits.ImageHDU(array, name=name.upper()) for name, array in arrays.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)


@pytest.mark.parametrize("form", ["hdf5", "fits"])
def test_a_short_training(form, path, stamps, tmp_path, monkeypatch, capsys):
    data = path
    if form == "fits":
        data = tmp_path / "stamps.fits"
        write_fits(data, {name: stamps[name] for name in ("image", "psf", "variance", "mask")})
    out = tmp_path / "light.h5"
    status, printed, err = run(
        monkeypatch, capsys, "galaxy_light", "--data", data, "--out", out, "--steps", 60
    )
    assert status == 0, err
    found = re.search(r"reduced chi-square of 6 held-out stamps: ([\d.]+)", printed)
    good = stamps["mask"][-6:] == 0
    nothing = np.mean((stamps["image"] ** 2 / stamps["variance"])[-6:][good])
    assert float(found[1]) < 0.5 * (1 + nothing)
    assert out.exists()
    assert ("median error of fluxes" in printed) == (form == "hdf5")


def test_a_short_training_of_profiles(tmp_path, monkeypatch, capsys):
    few, out = simulated(tmp_path / "stamps.h5", 20), tmp_path / "profile.h5"
    status, printed, err = run(
        monkeypatch, capsys, "galaxy_profile", "--data", few, "--out", out, "--sweeps", 1
    )
    assert status == 0, err
    found = re.findall(r"(\w+): bound .*, reduced chi-square ([\d.]+)", printed)
    assert [name for name, _ in found] == ["Spergel", "learned"]
    assert all(abs(float(square) - 1) < 0.1 for _, square in found)
    assert printed.count("median error of fluxes") == 2
    assert learned_light(out).weights(np.zeros(3))[0].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.pop("variance"), "has no 'variance'"),
        (lambda a: a.update(image=a["image"][0]), r"image must be \(n, side, side\)"),
        (lambda a: a.update(mask=a["mask"][:, :3]), r"mask \(60, 3, 45\) must have the shape"),
        (lambda a: a.update(psf=a["psf"][:, :, :4]), "PSFs must be square, of odd side"),
        (lambda a: a.update(image=a["image"] * np.nan), "0 stamps have light"),
    ],
)
def test_bad_stamps_get_one_line(change, says, stamps, tmp_path, monkeypatch, capsys):
    arrays = {name: stamps[name] for name in ("image", "psf", "variance", "mask")}
    change(arrays)
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    status, _, err = run(monkeypatch, capsys, "galaxy_light", "--data", tmp_path / "bad.h5")
    assert status == 2
    assert re.search(says, err), err
    assert err.count("\n") == 1
