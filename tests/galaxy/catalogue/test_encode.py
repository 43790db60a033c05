"""Catalogues of pictures whose shapes are known, and what the model gives when called by hand."""

import dataclasses
import gc
import weakref

import numpy as np
import pytest
from astropy.io import fits
from linear_galaxies import LATENT, PICTURE, SIDE, ellipse
from PIL import Image
from scipy.stats import percentileofscore, spearmanr

import layerkit as lk
from layerkit import galaxy
from layerkit.errors import DataError, SnapshotError
from layerkit.galaxy.catalogue import encode as encoding
from layerkit.galaxy.catalogue.encode import percentiles, unusable
from layerkit.galaxy.catalogue.summaries import SUMMARIES
from layerkit.galaxy.evaluation.bounds import BOUND_SAMPLES


@pytest.fixture(scope="module")
def table(shared):
    return galaxy.encode(shared["run"], shared["pictures"])


def half_light_radius(sigma, ratio):
    """Half-light radius of an elliptical Gaussian, from the sum of its pixels."""
    image = ellipse(301, 4 * sigma, ratio, 0.0, sky=0.0, peak=1.0)
    y, x = np.mgrid[:301, :301] - 150
    radius = np.hypot(y, x).ravel()
    order = np.argsort(radius)
    growth = np.cumsum(image.ravel()[order])
    return radius[order][np.searchsorted(growth, growth[-1] / 2)] / 4


def test_rows_are_in_the_order_of_the_source_with_reasons(table, shared):
    source = galaxy.open_source(shared["pictures"])
    assert list(table["id"]) == source.ids == sorted(source.ids)
    assert list(table["file"]) == [f"{name}.png" for name in source.ids]
    excluded = shared["galaxies"].excluded
    assert {row["id"]: row["reason"] for row in table if row["reason"]} == excluded
    assert set(excluded) >= {"g001", "g004"}
    assert unusable(table) == shared["galaxies"].excluded_counts
    bad = table[table["reason"] != ""]
    for name in set(table.colnames) - {"id", "file", "reason", "refined"}:
        assert np.isnan(bad[name]).all(), name
        assert np.isfinite(table[table["reason"] == ""][name]).all(), name
    assert not table["refined"].any()


def test_shapes_are_those_of_the_galaxies(table, shared):
    known = dict(zip(shared["names"], shared["truth"], strict=True))
    rows = [row for row in table if not row["reason"]]
    assert len(rows) > 50
    sigma, ratio, angle = np.array([known[row["file"]] for row in rows]).T
    found = {name: np.array([row[name] for row in rows]) for name in SUMMARIES}
    sizes = [half_light_radius(s, q) for s, q in zip(sigma, ratio, strict=True)]
    np.testing.assert_allclose(found["half_light_radius"], sizes, rtol=0.1)
    assert np.median(np.abs(found["half_light_radius"] / sizes - 1)) < 0.03
    assert np.median(np.abs(found["axis_ratio"] - ratio)) < 0.03
    # Rows run down: the angle from up is 90 less that from right, which is minus that in pixels.
    off = (found["position_angle"] - (-angle - 90) + 90) % 180 - 90
    assert np.median(np.abs(off)) < 2
    crops = np.array([[row[f"crop_{k}"] for k in ("y", "x", "side")] for row in rows])
    middle = crops[:, :2] + crops[:, 2:] / 2
    np.testing.assert_allclose(middle, PICTURE / 2, atol=5)


def test_angles_do_not_depend_on_the_other_files(shared, rng, tmp_path):
    """FITS pictures are displayed from the bottom; beside more of other kinds, as alone."""
    light = ellipse(PICTURE, 6.0, 0.4, 30.0, peak=180.0, sky=10.0)  # 30 degrees, from x to y
    one = np.round(light + rng.normal(0, 2, light.shape)).astype("u1")
    fits.writeto(tmp_path / "a.fits", one.astype("f4"))
    angles = []
    for others in (0, 2):
        for k in range(others):
            Image.fromarray(one).save(tmp_path / f"b{k}.png")
        table = galaxy.encode(shared["run"], tmp_path, draws=0, workers=0)
        angles.append(dict(zip(table["id"], table["position_angle"], strict=True)))
    assert angles[0]["a"] == pytest.approx(120, abs=2)  # rows run up: 30 - 90
    assert angles[1]["a"] == pytest.approx(120, abs=2)
    assert angles[1]["b0"] == pytest.approx(60, abs=2)  # rows run down: -30 - 90


@pytest.mark.parametrize("refine", [0, 7])
def test_numbers_are_those_of_the_model_called_by_hand(shared, refine):
    table = galaxy.encode(shared["run"], shared["pictures"], refine=refine, draws=3)
    rows = table[table["reason"] == ""]
    galaxies, model = shared["galaxies"], galaxy.load_model(shared["run"])
    np.testing.assert_array_equal(model.temperature, shared["temperature"])
    images = galaxies.images

    def by_hand():
        if refine:
            posterior = galaxy.refine(model, images, refine, tempered=False)
        else:
            posterior = model.encode(images, tempered=False)
        return posterior, model.bound(images, BOUND_SAMPLES, posterior)

    posterior, (bound, kl) = model.net.run.same_noise(by_hand)
    mean, sd = model.temper(posterior)
    made, _ = model.reconstruct(images, posterior)
    assert list(rows["id"]) == galaxies.ids
    assert (rows["refined"] == bool(refine)).all()
    crops = np.column_stack([rows[f"crop_{k}"] for k in ("y", "x", "side")])
    np.testing.assert_array_equal(crops, galaxies.crops)
    for k in range(LATENT):
        np.testing.assert_allclose(rows[f"z_mean_{k}"], mean[:, k], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(rows[f"z_sd_{k}"], sd[:, k], rtol=1e-5)
    np.testing.assert_allclose(rows["bound"], bound, rtol=1e-6)
    np.testing.assert_allclose(rows["kl"], kl, rtol=1e-5)
    errors = ((images - made) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(rows["squared_error"], errors, rtol=1e-4)
    likelihood = model.log_likelihood(images, posterior)
    np.testing.assert_allclose(rows["log_likelihood"], likelihood, rtol=1e-6)


def test_uncertainty_is_that_of_draws_from_the_posterior(shared):
    """A model that is twice as unsure of z is twice as unsure of everything that z decides."""
    model = galaxy.load_model(shared["run"])
    model.temperature = 1
    sure = galaxy.encode(model, shared["galaxies"], draws=20)
    model.net.params["z_log_variance/bias"].data += 2 * np.log(2)
    unsure = galaxy.encode(model, shared["galaxies"], draws=20)
    for name in SUMMARIES:
        if name != "asymmetry":  # its distribution is cut off at zero
            ratio = np.nanmedian(unsure[f"{name}_sd"]) / np.nanmedian(sure[f"{name}_sd"])
            assert ratio == pytest.approx(2, rel=0.25), name
    none = galaxy.encode(model, shared["galaxies"], draws=0)
    assert np.isnan(none["axis_ratio_sd"]).all()
    np.testing.assert_array_equal(none["axis_ratio"], sure["axis_ratio"])


def test_encoding_again_gives_the_numbers_again_and_leaves_the_model_as_it_was(shared, table):
    model = galaxy.load_model(shared["run"])
    model.net.run.passes = 0
    before = model.bound(shared["galaxies"].images)[0]
    model.net.run.passes = 0
    for _ in range(2):
        again = galaxy.encode(model, shared["pictures"], reference=shared["galaxies"])
        for name in ("bound", "z_mean_1", "half_light_radius_sd"):
            np.testing.assert_array_equal(again[name], table[name])
    np.testing.assert_array_equal(model.bound(shared["galaxies"].images)[0], before)


@pytest.mark.parametrize("batch", [1, 7])
def test_batches_change_nothing_but_the_noise(shared, table, batch):
    found = galaxy.encode(shared["run"], shared["pictures"], batch=batch, limit=20)
    assert list(found["id"]) == list(table["id"][:20])
    for name in ("z_mean_3", "squared_error", "axis_ratio", "crop_side"):
        np.testing.assert_allclose(found[name], table[name][:20], rtol=1e-4, atol=1e-5)


def test_prepared_galaxies_give_the_rows_of_their_pictures(shared, table):
    for source in (shared["run"] / "galaxies.h5", shared["galaxies"]):
        found = galaxy.encode(shared["run"], source)
        assert set(found["file"]) == {""}
        for name in set(table.colnames) - {"file"}:
            np.testing.assert_array_equal(found[name], table[name], name)


def test_no_more_than_a_batch_of_pictures_is_kept(shared, monkeypatch):
    alive, most = weakref.WeakValueDictionary(), []
    real = encoding.pictures_of

    def watched(*args):
        pictures = real(*args)

        def items():
            for picture in real(*args).items:
                alive[picture.id] = picture
                most.append(len(alive))
                yield picture
                del picture

        pictures.items = items()
        return pictures

    monkeypatch.setattr(encoding, "pictures_of", watched)
    gc.collect()
    galaxy.encode(shared["run"], shared["pictures"], batch=8)
    assert len(most) > 60
    assert 8 <= max(most) <= 20


def test_percentiles_rank_among_the_galaxies_held_out(shared, table, rng):
    values, reference = rng.integers(9, size=40) * 1.0, rng.integers(9, size=31) * 1.0
    expected = [percentileofscore(reference, v, "mean") for v in values]
    np.testing.assert_allclose(percentiles(values, reference), expected)
    assert np.isnan(percentiles(np.array([np.nan, 1.0]), reference)).tolist() == [True, False]
    assert np.isnan(percentiles(values, reference[:0])).all()

    model, galaxies = galaxy.load_model(shared["run"]), shared["galaxies"]
    _, held_out = galaxy.split(galaxies.ids, 20)
    bounds, _ = model.bound(galaxies.images[held_out], BOUND_SAMPLES)
    usable = table["reason"] == ""
    expected = [percentileofscore(bounds, b, "mean") for b in table["bound"][usable]]
    # The noise in the bounds differs.
    np.testing.assert_allclose(table["bound_percentile"][usable], expected, atol=11)


def test_a_galaxy_unlike_the_others_is_at_the_bottom(shared):
    images = shared["galaxies"].images[:9].copy()
    images[4, 5:12, 20:30] += 0.3
    odd = dataclasses.replace(shared["galaxies"], images=images,
        ids=shared["galaxies"].ids[:9], crops=shared["galaxies"].crops[:9],
        stretches=shared["galaxies"].stretches[:9], excluded={})  # fmt: skip
    found = galaxy.encode(shared["run"], odd)["bound_percentile"]
    assert found[4] == 0
    assert found.argmin() == 4


def test_without_the_galaxies_of_the_run_there_are_no_percentiles(shared, run_copy):
    (run_copy / "galaxies.h5").unlink()
    table = galaxy.encode(run_copy / "model.h5", shared["pictures"], limit=6, draws=1)
    assert np.isnan(table["bound_percentile"]).all()
    assert np.isfinite(table["bound"]).any()
    galaxy.prepare(
        galaxy.open_source(shared["pictures"]), run_copy / "galaxies.h5", size=SIDE, limit=30,
        progress=False,
    )  # fmt: skip
    table = galaxy.encode(run_copy, shared["pictures"], limit=6, draws=1)
    assert np.isnan(table["bound_percentile"]).all()  # others than the run's


def test_percentiles_rank_among_another_set_that_was_held_out(shared, run_copy):
    """A run that holds out another source keeps its galaxies in a folder of their own."""
    others = galaxy.gather(
        shared["pictures"], run_copy / "held_out" / "galaxies.h5", limit=15, size=SIDE
    )
    model, file = galaxy.load_model(run_copy), run_copy / "model.h5"
    extra = dict(lk.snapshot.read_extra(file)) | {"prepared_held_out": others.digest}
    extra["settings"]["held_out"] = str(shared["pictures"])
    lk.save(file, model.net, extra=extra)
    found = galaxy.encode(run_copy, others, draws=0)
    ranks = found["bound_percentile"][found["reason"] == ""] / 100 * len(others)
    np.testing.assert_allclose(ranks, np.round(2 * ranks) / 2, atol=1e-9)  # among 13, not 20
    bounds = found["bound"][found["reason"] == ""]
    assert spearmanr(ranks, bounds).statistic > 0.99
    (run_copy / "held_out" / "galaxies.h5").unlink()
    assert np.isnan(galaxy.encode(run_copy, others, draws=0)["bound_percentile"]).all()


def test_the_size_of_the_galaxies_is_that_of_the_run(shared):
    """The net's default is 69 x 69, and the run told it otherwise."""
    model = galaxy.load_model(shared["run"])
    assert model.pixels == SIDE**2
    assert model.latent == LATENT


def test_sources_and_models_that_are_none(shared, tmp_path):
    model = galaxy.load_model(shared["run"])
    with pytest.raises(DataError, match="no such file"):
        galaxy.encode(model, tmp_path / "nothing")
    with pytest.raises(DataError, match="source of pictures"):
        galaxy.encode(model, 7)
    with pytest.raises(DataError, match="a GalaxyModel, or the path"):
        galaxy.encode(model.net, shared["pictures"])
    with pytest.raises(DataError, match="refine"):
        galaxy.encode(model, shared["pictures"], refine=-1)
    with pytest.raises(DataError, match="hdu"):
        galaxy.encode(model, shared["galaxies"], hdu=1)
    with pytest.raises(DataError, match=r"shape \(3, 4, 4\)"):
        galaxy.encode(model, shared["pictures"], reference=np.zeros((3, 4, 4)))
    galaxy.prepare(
        galaxy.open_source(shared["pictures"]), tmp_path / "g.h5", size=20, limit=9, progress=False
    )
    with pytest.raises(DataError, match=f"20 x 20 pixels, and the model takes {SIDE} x {SIDE}"):
        galaxy.encode(model, tmp_path / "g.h5")


def test_runs_that_are_none(shared, run_copy, tmp_path):
    with pytest.raises(SnapshotError, match="no snapshot at"):
        galaxy.load_model(tmp_path)
    with pytest.raises(SnapshotError, match=r"galaxies\.h5"):
        galaxy.load_model(run_copy / "galaxies.h5")
    model, file = galaxy.load_model(run_copy), run_copy / "model.h5"
    extra = dict(lk.snapshot.read_extra(file))
    faults = [
        ({}, "training run"),
        ({**extra, "settings": 7}, "training run"),
        ({**extra, "settings": {**extra["settings"], "set": ["a"]}}, "training run"),
        ({**extra, "net_text": 3}, "net file"),
        ({**extra, "latent_temperature": "hot"}, "temperature"),
        ({**extra, "latent_temperature": [1.0, 2.0]}, "temperature"),
    ]
    for spoilt, says in faults:
        lk.save(file, model.net, extra=spoilt)
        with pytest.raises(SnapshotError, match=says):
            galaxy.load_model(run_copy)
    lk.save(file, model.net, extra={**extra, "net_text": "x = 1"})
    with pytest.raises(lk.errors.NetFileError):
        galaxy.load_model(run_copy)


def test_sources_without_a_picture_or_a_pixel(shared):
    class Own:
        name, ids = "own", ["a", "b"]

        def __len__(self):
            return len(self.ids)

        def read(self, i):
            return np.zeros((0, 9 * i))

    source = Own()
    assert list(galaxy.encode(shared["run"], source, draws=0)["reason"]) == ["blank"] * 2
    source.ids = []
    assert len(galaxy.encode(shared["run"], source, draws=0)) == 0
