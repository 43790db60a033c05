"""How many of 16 bits are used is measured for the set."""

import numpy as np
import pytest
from PIL import Image
from simulated import profile

from layerkit.galaxy.images.prepare.bit_depth import largest_value
from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.prepared import load
from layerkit.galaxy.images.sources.sources import open_source


def save(path, values, bits=16):
    Image.fromarray(values.astype("u2" if bits == 16 else "u1")).save(path)


def test_how_many_of_16_bits_are_used_is_decided_for_the_set(rng, tmp_path):
    def write(folder, top, hot):
        folder.mkdir()
        for k, share in enumerate((0.9, 0.4, 0.2)):
            rng = np.random.default_rng(k)
            light = profile(120, 60, 60, 6, peak=1.6) + rng.normal(0.05, 0.005, (120, 120))
            values = np.clip(light / light.max() * share, 0, 1) * top
            if hot and k == 2:
                values[7, 9] = 65535
            save(folder / f"{k}.png", values)
        prepare(open_source(folder), tmp_path / f"{folder.name}.h5", progress=False)
        return load(tmp_path / f"{folder.name}.h5")

    deep = write(tmp_path / "deep", 65535, hot=False)
    camera = write(tmp_path / "camera", 4095, hot=False)
    spoilt = write(tmp_path / "spoilt", 4095, hot=True)
    np.testing.assert_array_equal(deep.stretches, [[0, 0, 65535]] * 3)
    np.testing.assert_array_equal(camera.stretches, [[0, 0, 4095]] * 3)
    assert deep.images.max(axis=(1, 2)) == pytest.approx([0.9, 0.4, 0.2], rel=0.1)
    np.testing.assert_allclose(camera.images, deep.images, atol=0.002)
    np.testing.assert_array_equal(spoilt.stretches, camera.stretches)
    np.testing.assert_allclose(spoilt.images, camera.images, atol=1e-3)


def test_the_largest_value_is_one_that_a_neighbour_confirms():
    image = np.zeros((5, 5), np.uint16)
    image[2, 2] = 60000
    image[3, 2] = 900
    assert largest_value(image) == 900
    assert largest_value(image[:1, :1]) == 0


def test_marks_of_saturated_pixels_are_no_light():
    image = np.random.default_rng(0).integers(0, 4096, (20, 20)).astype(np.uint16)
    light = largest_value(image)
    assert 3000 < light < 4096
    image[5:8, 3:12] = 65535  # of a camera of 12 bits
    assert largest_value(image) == light
    image[5:8, 12] = 40000  # a star that fades from there to the sky
    assert largest_value(image) == 65535
    assert largest_value(np.full((4, 4), 65535, np.uint16)) == 65535
