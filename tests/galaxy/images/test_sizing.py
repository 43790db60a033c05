"""The size at which galaxies are prepared, against crops of known size."""

import numpy as np
import pytest

import layerkit as lk
from layerkit import galaxy
from layerkit.galaxy.images.crop.crop import Settings, cut_out
from layerkit.galaxy.images.prepare.sizing import SMALLEST, native_size


@pytest.fixture
def rng():
    """Equal numbers in every run: crops of a size that no noise moves to the next."""
    return np.random.default_rng(21)


class Round:
    """Gaussian galaxies of these widths, on a faint sky."""

    name = "round"

    def __init__(self, widths, rng):
        self.widths, self.ids = widths, [f"{i}" for i in range(len(widths))]
        self.noise = 0.004 * rng.standard_normal((200, 200))

    def __len__(self):
        return len(self.widths)

    def read(self, i):
        y, x = np.mgrid[:200, :200] - 99.5
        light = 0.8 * np.exp(-(x**2 + y**2) / (2 * self.widths[i] ** 2))
        return (light + 0.05 + self.noise).astype("float32")


@pytest.mark.parametrize("widths", [[5, 6, 7], [3, 3, 9], [6]])
def test_the_side_is_that_of_the_median_crop(widths, rng):
    source = Round(widths, rng)
    sides = [cut_out(source.read(i), Settings())[1].side for i in range(len(source))]
    assert native_size(source) == int(np.median(sides))
    assert native_size(source, limit=1) == int(sides[0])


def test_bounds_of_the_side(rng):
    assert native_size(Round([20, 22], rng)) == 69
    assert native_size(Round([1.7], rng)) == SMALLEST
    assert native_size(Round([5], rng), most=24) == 24
    empty = Round([5, 5], rng)
    empty.read = lambda i: np.zeros((50, 50), "float32")
    assert native_size(empty) == 69


def test_in_linear_units_pictures_with_holes_have_a_size_too(rng):
    """Stretched, none of them could be cut out, and galaxies would be enlarged to 69 pixels."""
    source = Round([5, 5], rng)
    whole = source.read

    def read(i):
        picture = whole(i).astype("float64")
        picture[97, 103] = np.nan
        return picture

    side = cut_out(whole(0).astype("float64"), Settings())[1].side
    source.read = read
    assert native_size(source) == 69
    assert native_size(source, units="linear") == pytest.approx(side, abs=1)


def test_gather_says_that_galaxies_are_smaller(tmp_path, rng, capsys, monkeypatch):
    source = Round([5] * 4, rng)
    monkeypatch.setattr(
        "layerkit.galaxy.images.prepare.gather.open_source", lambda path, hdu: source
    )
    monkeypatch.setattr("layerkit.galaxy.images.prepare.gather.contact_sheets", lambda *a: None)
    side = native_size(source)
    assert side < 69
    found = galaxy.gather(None, tmp_path / "a.h5", size=None)
    assert found.size == side
    assert f"galaxies are prepared at {side} x {side} pixels" in capsys.readouterr().out
    assert galaxy.gather(None, tmp_path / "a.h5", size=None).size == side
    assert "earlier" in capsys.readouterr().out
    assert galaxy.gather(None, tmp_path / "a.h5").size == 69  # other settings: prepared again
    assert "pixels are made" not in capsys.readouterr().out


def test_a_camera_of_12_bits_has_the_crops_of_one_of_16():
    """Brightness counts within the set, not beside the most that 16 bits hold."""
    light = Round([5, 6, 7], np.random.default_rng(3))

    class Deep(Round):
        def __init__(self, top):
            self.widths, self.ids, self.noise = light.widths, light.ids, light.noise
            self.top, self.deep = top, [0, 1, 2]

        def read(self, i):
            values = super().read(i)
            return np.clip(np.rint(self.top * values), 0, self.top).astype("uint16")

    assert native_size(Deep(4095)) == native_size(Deep(65535)) == native_size(light)


def test_pictures_that_fail_are_passed_over():
    source = Round([5, 6, 7], np.random.default_rng(4))
    side = native_size(source)
    whole, source.widths, source.ids = source.read, [*source.widths, 0], [*source.ids, "bad"]

    def read(i):
        if i == 3:
            raise OSError("gone")
        return whole(i)

    source.read = read
    assert native_size(source) == side


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_galaxies_are_prepared_at_every_size_that_may_be_chosen(kind, rng):
    """The galaxy in the middle is the one that a larger view shows, and is kept at all sizes."""
    image = 100 * Round([5], rng).read(0).astype("float64")
    image = image if kind == "float64" else (image / 100).astype("float32")
    for size in range(SMALLEST, 70):
        view = cut_out(image, Settings(size=size))[0]
        assert view.shape == (size, size)
        half = (size - 1) / 2
        y, x = np.indices(view.shape) - half
        light = view - np.median([view[0], view[-1]])
        assert abs((light * y).sum() / light.sum()) < 0.02 * size
        assert abs((light * x).sum() / light.sum()) < 0.02 * size


@pytest.mark.parametrize("file", ["gdae", "wide", "ladder", "conv", "pose"])
def test_nets_take_pictures_of_another_size(file, rng):
    path = f"nets/galaxy_{file}.py"
    known = lk.netfile.net_settings(path)
    size = {"side": 24} if "side" in known else {"pixels": 24 * 24}
    net = lk.Net(lk.load_net(path, hidden=8, **size), 4, phase="test")
    images = rng.uniform(0, 1, (3, 24, 24)).astype("float32")
    assert galaxy.GalaxyModel(net).reconstruct(images)[0].shape == images.shape
