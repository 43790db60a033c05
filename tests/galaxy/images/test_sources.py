"""open_source: what can be opened, and what is refused with which words."""

import pytest

from layerkit.errors import DataError
from layerkit.galaxy.images.prepare.prepare import prepare
from layerkit.galaxy.images.prepared import is_prepared
from layerkit.galaxy.images.sources.sources import open_source


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.zip", None, "no such file"),
        ("empty.zip", b"PK\5\6" + bytes(18), "an empty zip"),
        ("false.zip", b"galaxies", "not a zip"),
        ("cut.zip", b"PK\3\4" + bytes(50), "truncated"),
        ("notes.txt", b"twelve galaxies", "not a zip, a picture"),
        ("folder/", None, "an empty folder"),
    ],
)
def test_what_cannot_be_opened(tmp_path, name, content, says):
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_source(path)
    message = str(caught.value)
    assert says in message
    assert str(path) in message
    assert "\n" not in message


def test_prepared_sets_are_told_apart(tmp_path):
    path = tmp_path / "hubble.h5"
    prepare(open_source(None), path, limit=20, progress=False)
    assert is_prepared(path)
    with pytest.raises(DataError, match=r"load\(\)"):
        open_source(path)
    assert not is_prepared(None)
    assert not is_prepared(tmp_path)
    (tmp_path / "other").write_bytes(b"text")
    assert not is_prepared(tmp_path / "other")


@pytest.mark.parametrize("hdu", [True, -1, 1.5, b"SCI", ["SCI"]])
def test_an_hdu_that_is_neither_number_nor_name(hdu, tmp_path):
    with pytest.raises(DataError, match="hdu must be a whole number"):
        open_source(tmp_path, hdu)


@pytest.mark.parametrize("path", ["", "a\0b", 5, True, []])
def test_a_path_that_is_none(path):
    with pytest.raises(DataError, match="expected the path of a file"):
        open_source(path)
