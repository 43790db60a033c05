"""Signatures: by these, processes that train together find that one of them has other data."""

import h5py
import numpy as np
import pytest
from PIL import Image

import layerkit as lk
from layerkit import layers as L

COUNT = 40


def signed(layer):
    """Return a layer's signature as bytes."""
    found = lk.Net([layer], 2, gradients="none").layers["d"].signature()
    return b" ".join(bytes(np.ascontiguousarray(x)) for x in found)


def in_memory(folder, images, labels):
    return L.MemoryData("d", data=[images, labels], tops=["x", "t"])


def in_a_file(folder, images, labels):
    folder.mkdir()
    with h5py.File(folder / "d.h5", "w") as file:
        file["x"], file["t"] = images, labels
    return L.HDF5Data("d", path=folder / "d.h5", datasets=["x", "t"], tops=["x", "t"])


def in_two_files(folder, images, labels):
    folder.mkdir()
    for name, part in (("a", slice(0, 15)), ("b", slice(15, None))):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["x"], file["t"] = images[part], labels[part]
    paths = [folder / "a.h5", folder / "b.h5"]
    return L.HDF5Data("d", path=paths, datasets=["x", "t"], tops=["x", "t"], skip=[3])


def in_pictures(folder, images, labels):
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    table = [(f"{i}.png", label) for i, label in enumerate(labels.tolist())]
    return L.ImageData("d", folder=folder, table=table, tops=["x", "t"], channels=1)


@pytest.mark.parametrize("make", [in_memory, in_a_file, in_two_files, in_pictures])
def test_other_examples_or_labels_are_signed_otherwise(make, rng, tmp_path):
    images = rng.integers(0, 256, (COUNT, 6, 6), dtype=np.uint8)
    labels = rng.integers(0, 3, COUNT)
    other_images, other_labels = images.copy(), labels.copy()
    other_images[17] = 0  # which makes its file of another size
    other_labels[17] += 1
    given = {
        "one": (images, labels),
        "equal": (images, labels),
        "image": (other_images, labels),
        "label": (images, other_labels),
        "fewer": (images[:-1], labels[:-1]),
    }
    found = {name: signed(make(tmp_path / name, *its)) for name, its in given.items()}
    assert found["one"] == found["equal"]
    assert len(set(found.values())) == len(given) - 1


def test_files_of_other_lengths_are_signed_otherwise(tmp_path):
    numbers = np.arange(20.0).reshape(-1, 1)
    found = []
    for cut in (8, 9):
        paths = [tmp_path / f"{cut}a.h5", tmp_path / f"{cut}b.h5"]
        for path, rows in zip(paths, (numbers[:cut], numbers[cut:]), strict=True):
            with h5py.File(path, "w") as file:
                file["n"] = rows
        found.append(signed(L.HDF5Data("d", path=paths, datasets="n")))
    assert found[0] != found[1]
