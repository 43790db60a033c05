"""Sets of galaxies some pixels of which are masked: stored, trained on, evaluated and encoded."""

import numpy as np
import pytest
from astropy.io import fits
from galaxy_runs import QUICK, SMALL_NET, quicken
from linear_galaxies import PICTURE, ellipse

from layerkit import galaxy
from layerkit.galaxy.images.prepared import digest_of
from layerkit.galaxy.images.stored import StoredSet

COUNT, SIDE, SKY, NOISE, BAD = 24, 33, 200.0, 3.0, 64  # column of the pictures without data


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        yield


def pictures_in(folder, masked):
    """Write FITS files of a galaxy each, with a mask beside some of them."""
    rng = np.random.default_rng(5)
    folder.mkdir()
    for k in range(COUNT):
        sigma, ratio, angle = rng.uniform([5, 0.5, 0], [8, 0.9, 180])
        picture = ellipse(PICTURE, sigma, ratio, angle, peak=900.0, sky=SKY)
        picture += rng.normal(0, NOISE, picture.shape)
        bad = np.zeros(picture.shape, np.uint8)
        if k in masked:
            bad[:, BAD], picture[:, BAD] = 1, 60_000.0
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(picture, name="SCI")]
        fits.HDUList([*hdus, fits.ImageHDU(bad, name="MASK")]).writeto(folder / f"g{k:02d}.fits")
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Pictures of which a third are masked; prepared into one file and into shards; a net file."""
    top = tmp_path_factory.mktemp("masked")
    pictures = pictures_in(top / "pictures", range(0, COUNT, 3))
    options = {"size": SIDE, "units": "linear", "workers": 1, "progress": False}
    galaxy.prepare(galaxy.open_source(pictures), top / "one.h5", **options)
    galaxy.prepare_shards(pictures, top / "shards", each=7, **options)
    (top / "small.py").write_text(SMALL_NET)
    return top


def train(given, data, out, **settings):
    options = {**QUICK, "iterations": 6, "units": "linear", **settings}
    return galaxy.train(given / data, out, net=given / "small.py", **options)


@pytest.fixture(scope="module")
def run(given, tmp_path_factory):
    return train(given, "one.h5", tmp_path_factory.mktemp("run") / "out")


def test_masks_are_where_pictures_have_no_data(given):
    galaxies = galaxy.load(given / "one.h5")
    assert len(galaxies) == COUNT
    masks = np.ma.getmaskarray(galaxies.images)
    for k, (_, x0, side) in enumerate(galaxies.crops):
        hidden = np.flatnonzero(masks[k].any(axis=0))
        if k % 3:
            assert not len(hidden)
            continue
        assert masks[k][:, hidden].all()
        ends = (np.array([hidden[0], hidden[-1] + 1])) * side / SIDE + x0
        # All that the column touches, and what else an image's pixel there takes its light from.
        assert ends[0] <= BAD < BAD + 1 <= ends[1]
        assert len(hidden) <= 4
    # Under a mask lies the light that is opposite, not what the picture holds there.
    assert np.ma.getdata(galaxies.images).max() < 2


def test_shards_and_one_file_are_one_set(given):
    one, shards = galaxy.load(given / "one.h5"), galaxy.load(given / "shards")
    stored = StoredSet(given / "shards")
    assert stored.masked
    assert stored.digest == shards.digest == one.digest
    for found in (shards.images, np.ma.stack(list(stored)), stored.images_of(np.arange(COUNT))):
        np.testing.assert_array_equal(np.ma.getdata(found), np.ma.getdata(one.images))
        np.testing.assert_array_equal(np.ma.getmaskarray(found), np.ma.getmaskarray(one.images))
    rows = np.array([1, 2, 8])  # the first shard's are not masked, and the second's are not read
    np.testing.assert_array_equal(stored.images_of(rows), one.images[rows].data)
    assert digest_of(one.ids, SIDE, one.images.data) != one.digest


def test_training_leaves_masked_pixels_out(given, run):
    net = run.model.net
    assert "x_mask" not in net.blobs  # scores whole images, too
    assert np.isfinite(run.evaluation.bounds.held_out).all()
    held_out = galaxy.load(given / "one.h5")
    rows = np.isin(held_out.ids, [f"g{k:02d}" for k in range(0, COUNT, 3)])
    images = held_out.images[rows]
    pixels = np.ma.count(images.reshape(len(images), -1), axis=1)
    assert (pixels < SIDE * SIDE).all()
    # Log likelihoods of ruined pixels that count for nothing are those of the others.
    ruined = np.ma.array(np.where(images.mask, 9.0, images.data), mask=images.mask)
    posterior = run.model.encode(images)
    np.testing.assert_array_equal(
        run.model.log_likelihood(ruined, posterior), run.model.log_likelihood(images, posterior)
    )


def test_shards_are_trained_on_with_their_masks(given, run, tmp_path):
    found = train(given, "shards", tmp_path / "out")
    for name in ("galaxies", "train", "held_out"):
        assert found.metrics[name] == run.metrics[name], name
    assert np.isfinite(found.metrics["held_out_elbo"])
    assert found.metrics["held_out_elbo"] == pytest.approx(run.metrics["held_out_elbo"], rel=0.02)


def test_both_kinds_of_data_serve_images_beside_their_masks(given, tmp_path, monkeypatch):
    """Image and mask are turned alike."""
    from layerkit.galaxy.training.run import run as running

    images = galaxy.load(given / "one.h5").images
    under = {image.tobytes() for image in turned(images.data)}
    pairs = {a.tobytes() + b.tobytes() for a, b in zip(turned(images.data), turned(~images.mask),
                                                       strict=True)}  # fmt: skip
    nets = []

    class Watched(running.lk.Net):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            nets.append(self)

    for data in ("one.h5", "shards"):
        with monkeypatch.context() as patch:
            patch.setattr(running.lk, "Net", Watched)
            train(given, data, tmp_path / data)
        (net,) = (net for net in nets if net.sources())
        nets.clear()
        assert (net.blobs["x_mask"].data == 0).any()
        for x, mask in zip(net.blobs["x"].data, net.blobs["x_mask"].data, strict=True):
            assert x.tobytes() in under
            assert x.tobytes() + (mask != 0).tobytes() in pairs


def turned(images):
    """Each of the eight positions of each image, in one row of contiguous numbers."""
    return [
        np.ascontiguousarray(np.rot90(view, k)).reshape(-1)
        for image in images
        for view in (image, image[:, ::-1])
        for k in range(4)
    ]


def test_catalogues_leave_masked_pixels_out(given, run):
    pictures = galaxy.encode(run.folder, given / "pictures", units="linear", draws=1, workers=1)
    one = galaxy.encode(run.folder, given / "one.h5", draws=1)
    shards = galaxy.encode(run.folder, given / "shards", draws=1)
    masked = np.arange(COUNT) % 3 == 0
    assert (pictures["missing"][masked] > 0).all()
    for table in (one, shards):
        for name in ("z_mean_0", "bound", "squared_error", "log_likelihood", "bound_percentile"):
            np.testing.assert_array_equal(table[name], pictures[name], name)
    # A percentile ranks what the bound of all pixels would be.
    assert np.isfinite(pictures["bound_percentile"]).all()


def test_without_a_masked_pixel_there_is_no_mask(given, tmp_path, monkeypatch):
    pictures = pictures_in(tmp_path / "whole", ())
    galaxies = galaxy.gather(pictures, tmp_path / "whole.h5", size=SIDE, units="linear")
    assert type(galaxies.images) is np.ndarray
    assert not StoredSet(tmp_path / "whole.h5").masked
    from layerkit.galaxy.training.run import gathering

    monkeypatch.setattr(gathering, "with_masked_data", None)
    galaxy.train(
        tmp_path / "whole.h5", tmp_path / "out", net=given / "small.py", units="linear",
        **{**QUICK, "iterations": 2},
    )  # fmt: skip
