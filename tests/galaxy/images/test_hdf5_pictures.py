"""HDF5: data sets of pictures, scaled and packed."""

import pickle
import struct

import h5py
import numpy as np
import pytest
from picture_files import check_all, hdf5, pixels_of, reason

from layerkit.galaxy.images.sources.sources import open_source


def test_many_pictures_in_hdf5(rng, tmp_path):
    def check(expected, **data):
        with h5py.File(tmp_path / "s.h5", "w") as file:
            for name, values in data.items():
                file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]))
        source = pickle.loads(pickle.dumps(open_source(tmp_path / "s.h5")))
        assert len(source) == len(expected)
        for k in range(len(source)):
            np.testing.assert_allclose(source.read(k), expected[k], atol=1e-6)
        return source

    colour = pixels_of(rng, 5, 12, 14, 3)
    galaxy10 = check(colour.mean(3) / 255, images=colour, ans=np.arange(5), ra=np.ones(5))
    assert galaxy10.ids == [f"s[{k:04d}]" for k in range(5)]
    assert galaxy10.read(0).dtype == np.float32
    check(colour.mean(3) / 255, images=colour.transpose(0, 3, 1, 2))
    check([colour[0].mean(2) / 255], images=colour[0])
    flux = rng.normal(0, 1, (3, 12, 14))
    assert check(flux, anything=flux).read(0).dtype == np.float64
    check([flux[0]], images=flux[0])
    deep = pixels_of(rng, 4, 12, 14, dtype=np.uint16)
    assert check(deep, images=deep.astype(">u2")).deep == [0, 1, 2, 3]


def test_scaled_numbers_of_netcdf(rng, tmp_path):
    packed = rng.integers(-900, 900, (2, 12, 14)).astype("i2")
    packed[0, 3, 4] = -32767
    expected = 0.25 * packed + 7
    expected[0, 3, 4] = np.nan
    path = tmp_path / "a.nc"
    scale = {"scale_factor": 0.25, "add_offset": np.array([7.0])}
    hdf5(path, attributes={**scale, "_FillValue": np.int16(-32767)}, images=packed)
    assert check_all(path, expected).read(0).dtype == np.float64
    holed = [[1, 99.9], [2, 3]]
    hdf5(path, attributes={"missing_value": np.float32(99.9)}, images=np.float32([holed] * 2))
    check_all(path, [[[1, np.nan], [2, 3]]] * 2)
    byte = pixels_of(rng, 2, 12, 14)
    byte[:, 0, 0], byte[byte == 255] = 255, 254
    byte[0, 5, 6] = 255
    light = byte / np.float32(255)
    light[0, 5, 6] = np.nan
    hdf5(path, attributes={"_FillValue": np.uint8(255)}, images=byte)
    source = check_all(path, light)
    assert {source.read(k).dtype for k in range(2)} == {np.dtype("f4")}
    hdf5(path, attributes={"scale_factor": 0.5}, images=byte.astype("u2"))
    source = check_all(path, 0.5 * byte)
    assert (source.deep, source.read(0).dtype) == ([], np.float64)
    hdf5(path, attributes={"scale_factor": 1.0, "add_offset": 0.0}, images=byte.astype("u2"))
    assert open_source(path).deep == [0, 1]
    for fault in ("two", [1.0, 2.0]):
        hdf5(path, attributes={"scale_factor": fault}, images=byte)
        assert reason(open_source(path), 0).startswith("an HDF5 attribute `scale_factor`")


@pytest.mark.parametrize("said", ["true", b"True", np.array([b"true"])])
@pytest.mark.parametrize("order", ["<", ">"])
def test_unsigned_numbers_of_netcdf(said, order, rng, tmp_path):
    """NetCDF's classic model has no unsigned types: an attribute says what the bits stand for."""
    path = tmp_path / "a.nc"
    byte, deep = (pixels_of(rng, 2, 12, 14, dtype=t) for t in (np.uint8, np.uint16))
    stored = deep.astype(f"{order}u2").view(f"{order}i2")
    hdf5(path, attributes={"_Unsigned": said}, images=byte.view("i1"))
    assert check_all(path, byte / np.float32(255)).read(0).dtype == np.float32
    hdf5(path, attributes={"_Unsigned": said}, images=stored)
    source = check_all(path, deep)
    assert (source.deep, source.read(0).dtype) == ([0, 1], np.uint16)
    assert (deep > 2**15).any()
    deep = deep.clip(0, 2**16 - 2)
    expected = 0.25 * deep
    deep[0, 3, 4], expected[0, 3, 4] = 2**16 - 1, np.nan
    stored = deep.astype(f"{order}u2").view(f"{order}i2")
    for fill in (np.int16(-1), np.uint16(2**16 - 1)):
        marks = {"_Unsigned": said, "_FillValue": fill, "scale_factor": 0.25}
        hdf5(path, attributes=marks, images=stored)
        check_all(path, expected)
    hdf5(path, attributes={"_Unsigned": "false"}, images=deep)
    check_all(path, deep.view("i2"))
    hdf5(path, attributes={"_Unsigned": 7}, images=byte)
    check_all(path, byte / np.float32(255))
    hdf5(path, attributes={"_Unsigned": said}, images=expected[1:].astype("f4"))
    check_all(path, expected[1:])


def test_hdf5_compressions_that_are_not_there_are_named(rng, tmp_path):
    """Plugins mark their filters as optional: one that is missing may have been passed over."""
    pixels = rng.random((4, 20, 30))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=pixels, chunks=(1, 20, 30), compression="gzip")
    content = (tmp_path / "a.h5").read_bytes()
    gzip_filter = struct.pack("<HHHH", 1, 8, 1, 1) + b"deflate\0"
    assert content.count(gzip_filter) == 1
    blosc = struct.pack("<HHHH", 32001, 8, 1, 1) + b"deflate\0"
    (tmp_path / "a.h5").write_bytes(content.replace(gzip_filter, blosc))
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((1, 20, 30))
    plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
    with h5py.File(tmp_path / "b.h5", "w") as file:
        space = h5py.h5s.create_simple(pixels.shape)
        data = h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_DOUBLE, space, plan)
        data.write(h5py.h5s.ALL, h5py.h5s.ALL, pixels)
    source = open_source(tmp_path)
    assert reason(source, 0) == "an unsupported HDF5 compression; save it with gzip"
    np.testing.assert_array_equal(source.read(4), pixels[0])
