"""Axes of arrays: pictures, bands and colours are told apart, or refused."""

import gzip
import pickle

import h5py
import numpy as np
import pytest
from astropy.io import fits
from picture_files import check_all, fits_file, hdf5, pixels_of, reason, tiff
from PIL import Image

from layerkit.galaxy.images.sources.sources import open_source


def test_colours_and_stacks(rng, tmp_path):
    band = rng.normal(0, 1, (4, 12, 14))
    stack = rng.normal(0, 1, (6, 12, 14))

    def check(content, expected, name="s.fits"):
        (tmp_path / name).write_bytes(content)
        source = pickle.loads(pickle.dumps(open_source(tmp_path / name)))
        many = len(expected) > 1
        assert source.ids == [f"s[{k:04d}]" if many else "s" for k in range(len(expected))]
        for k in [*range(len(source)), 0]:
            np.testing.assert_allclose(source.read(k), expected[k], atol=1e-6)

    def primary(data):
        return fits_file(fits.PrimaryHDU(data))

    for n in (3, 4):
        check(primary(band[:n]), [band[:n].mean(0)])
        check(primary(band[:n].transpose(1, 2, 0)), [band[:n].mean(0)])
    check(primary(band[:1, None]), [band[0]])
    check(primary(band[:2]), band[:2])
    check(primary(stack), stack)
    check(primary(stack[:, None]), stack)
    check(primary(np.stack([band[:3], band[1:]])), [band[:3].mean(0), band[1:].mean(0)])
    check(fits_file(fits.PrimaryHDU(), fits.CompImageHDU(stack, quantize_level=0,
          compression_type="GZIP_1")), stack)  # fmt: skip
    check(gzip.compress(primary(stack)), stack)
    check(fits_file(fits.PrimaryHDU(), *(fits.ImageHDU(x) for x in stack)), stack)
    check(fits_file(fits.PrimaryHDU(stack[0]), *(fits.ImageHDU(x) for x in stack[1:])), stack)
    check(tiff(stack, photometric="minisblack"), stack)
    check(tiff(stack, photometric="minisblack", planarconfig="separate"), stack)
    check(tiff(stack, photometric="minisblack", volumetric=True), stack)
    check(tiff(stack.astype("f4"), photometric="minisblack", compression="zlib"), stack)
    deep = pixels_of(rng, 6, 12, 14, dtype=np.uint16)
    check(tiff(deep, imagej=True), deep)
    grey = pixels_of(rng, 6, 12, 14)
    check(tiff(grey, photometric="minisblack"), grey / 255)


def test_bands_along_the_last_axis_are_a_picture_each(rng, tmp_path):
    images = rng.random((3, 20, 30, 5))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = images
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["images"] = images[..., :2]
    fits.writeto(tmp_path / "c.fits", images[0])
    source = open_source(tmp_path)
    assert len(source) == 3 * 5 + 3 * 2 + 5
    expected = [*np.moveaxis(images, -1, 1).reshape(15, 20, 30)]
    expected += [*np.moveaxis(images[..., :2], -1, 1).reshape(6, 20, 30)]
    # FITS, of which there are fewer, is turned: its first row is displayed at the bottom.
    for i, picture in enumerate([*expected, *np.moveaxis(images[0], -1, 0)[:, ::-1]]):
        np.testing.assert_array_equal(source.read(i), picture)


@pytest.mark.parametrize("matlab", [False, True])
def test_pictures_that_matlab_wrote(matlab, rng, tmp_path):
    """Its arrays have their axes in reverse, as HDF5 sees them."""
    colour = rng.random((20, 24, 24, 3))  # n, height, width
    wide = colour[:, :, :18]
    path = tmp_path / "a.mat"
    hdf5(path, matlab, images=colour.T)
    check_all(path, colour.mean(3))
    if matlab:
        hdf5(path, True, images=wide.transpose(1, 2, 3, 0).T)
        check_all(path, wide.mean(3))
        hdf5(path, True, images=wide.transpose(0, 3, 1, 2).T)
        check_all(path, wide.mean(3))
        hdf5(path, True, images=wide[..., 0].transpose(1, 2, 0).T)
        check_all(path, wide[..., 0])
        hdf5(path, True, images=wide[0].T)
        check_all(path, [wide[0].mean(2)])
    else:
        hdf5(path, images=wide.T)  # 3 x 18 pictures of 24 x 20, as well
        assert reason(open_source(path), 0).startswith("ambiguous axes")
    hdf5(path, matlab, images=colour[..., 0].T)
    assert reason(open_source(path), 0).startswith("ambiguous axes")


def test_pictures_along_the_last_axis(rng, tmp_path):
    colour = rng.random((20, 24, 18, 3))
    path = tmp_path / "a.h5"
    hdf5(path, images=colour.transpose(1, 2, 3, 0))  # height, width, 3, n
    check_all(path, colour.mean(3))
    fits.writeto(tmp_path / "a.fits", colour.transpose(1, 2, 3, 0))
    check_all(tmp_path / "a.fits", colour.mean(3))


@pytest.mark.parametrize("shape", [(24, 24, 20), (24, 24, 5, 20), (24, 18, 5, 20), (12, 14, 2),
                                   (1, 24, 24, 20), (3, 20, 24, 18)])  # fmt: skip
def test_axes_of_uncertain_order_are_refused(shape, rng, tmp_path):
    hdf5(tmp_path / "a.h5", images=rng.random(shape))
    fits.writeto(tmp_path / "a.fits", rng.random(shape))
    for name in ("a.h5", "a.fits"):
        assert reason(open_source(tmp_path / name), 0).startswith("ambiguous axes")


def test_few_galaxies_of_many_bands_are_no_reversed_colours(rng, tmp_path):
    images = rng.random((3, 20, 20, 5))
    hdf5(tmp_path / "a.h5", images=images)
    check_all(tmp_path / "a.h5", images.transpose(0, 3, 1, 2).reshape(15, 20, 20))


def smooth(rng, *shape):
    return rng.normal(0, 1, shape).cumsum(-1).cumsum(-2) / shape[-1]


def test_flattened_pictures_are_refused(rng, tmp_path):
    path = tmp_path / "a.h5"
    for pictures in (
        rng.random((20, 64, 64)),  # 20 x 4096, which no picture of a galaxy is
        smooth(rng, 300, 20, 20),  # 300 x 400, which one might be
        smooth(rng, 300, 3, 16, 16), smooth(rng, 300, 3, 16, 16).transpose(0, 2, 3, 1),
    ):  # fmt: skip
        hdf5(path, images=pictures.reshape(len(pictures), -1))
        assert reason(open_source(path), 0).startswith("rows that look like flattened")
    fits.writeto(tmp_path / "a.fits", rng.random((20, 4096)))
    assert reason(open_source(tmp_path / "a.fits"), 0).startswith("rows that look like flattened")
    for picture in (smooth(rng, 300, 400), smooth(rng, 400, 400), rng.random((300, 400)),
                    smooth(rng, 200, 768)):  # fmt: skip
        hdf5(path, images=picture)
        np.testing.assert_array_equal(open_source(path).read(0), picture)


def test_a_data_set_without_rows_is_no_image(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (0, 20, 30), np.float32)
    (tmp_path / "b").mkdir()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "b" / "b.png")
    assert reason(open_source(tmp_path), 0) == "not an image"
