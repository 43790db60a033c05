"""Tables that are written and read again, in every format, and joined by id."""

import codecs
import csv
import importlib.util
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Table
from astropy.time import Time

from layerkit import galaxy
from layerkit.errors import DataError
from layerkit.galaxy.catalogue.tables.tables import FORMATS

SUFFIXES = [s for s in FORMATS if s != ".parquet"]


@pytest.fixture
def table():
    numbers = np.array([1.5, np.nan, 1 / 3])
    return Table(
        {
            "id": ["a", "587722981736579107", "c d"],
            "reason": ["", "too faint, really", ""],
            "refined": [True, False, True],
            "bound": Column(numbers, unit="pix", description="a number"),
        },
        meta={"SOURCE": "pictures", "REFINE": 3},
    )


def equal(found, table):
    assert found.colnames == table.colnames
    for name in table.colnames:
        np.testing.assert_array_equal(found[name], table[name], name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trips(table, suffix, tmp_path):
    path = tmp_path / f"t{suffix}"
    for _ in range(2):  # the second time over the first file
        galaxy.write_catalogue(table, path)
        found = galaxy.read_catalogue(path)
        equal(found, table)
        assert found["refined"].dtype == bool
    if suffix != ".csv":
        assert found["bound"].unit == "pix"
        assert found.meta["SOURCE"] == "pictures"
    assert os.listdir(tmp_path) == [path.name]


def test_other_programs_read_what_is_written(table, tmp_path):
    for suffix in ("fits", "csv", "h5"):
        galaxy.write_catalogue(table, tmp_path / f"t.{suffix}")
    with fits.open(tmp_path / "t.fits") as hdus:
        np.testing.assert_array_equal(hdus[1].data["bound"], table["bound"])
        assert hdus[1].columns["bound"].unit == "pix"
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(table["id"])
    np.testing.assert_array_equal([float(row["bound"]) for row in rows], table["bound"])
    with h5py.File(tmp_path / "t.h5") as file:
        np.testing.assert_array_equal(file["catalogue"]["bound"], table["bound"])


def test_parquet(table, tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    galaxy.write_catalogue(table, tmp_path / "t.parquet")
    equal(galaxy.read_catalogue(tmp_path / "t.parquet"), table)


def test_parquet_without_pyarrow_is_one_line(table, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "pyarrow" else find(n))
    with pytest.raises(DataError, match="pip install pyarrow"):
        galaxy.write_catalogue(table, tmp_path / "t.parquet")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_texts_of_any_language(table, suffix, tmp_path):
    table["id"] = ["gálaxia", "銀河", "c"]
    galaxy.write_catalogue(table, tmp_path / f"t{suffix}")
    found = list(galaxy.read_catalogue(tmp_path / f"t{suffix}")["id"])
    escaped = [t.encode("ascii", "backslashreplace").decode() for t in table["id"]]
    assert found == (escaped if suffix in (".fits", ".fit") else list(table["id"]))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_ids_that_look_like_numbers_stay_as_they_are(table, suffix, tmp_path):
    """As of stamps that are named by right ascension."""
    table["id"] = ["150.1130", "1e5", "+5"]
    table["file"] = [f"{name}.fits" for name in table["id"]]
    table["reason"] = ["", "blank", ""]
    galaxy.write_catalogue(table, tmp_path / f"t{suffix}")
    assert list(galaxy.read_catalogue(tmp_path / f"t{suffix}")["id"]) == list(table["id"])


def test_a_column_of_another_table_is_text_where_that_is_said(tmp_path):
    (tmp_path / "own.csv").write_text("name,z\n150.1130,0.5\n1e5,0.25\n")
    found = galaxy.read_catalogue(tmp_path / "own.csv", texts=["name"])
    assert list(found["name"]) == ["150.1130", "1e5"]
    assert list(found["z"]) == [0.5, 0.25]
    assert list(galaxy.read_catalogue(tmp_path / "own.csv")["name"]) == [150.113, 1e5]
    (tmp_path / "places.csv").write_text("ID,x,y\n150.1130,1,2\n1e5,3,4\n")
    fits.writeto(tmp_path / "f.fits", np.zeros((9, 9)))
    source = galaxy.open_positions(tmp_path / "f.fits", tmp_path / "places.csv", cutout=8)
    assert source.ids == ["150.1130", "1e5"]


def test_a_file_that_cannot_be_written_leaves_nothing(table, tmp_path):
    with pytest.raises(DataError, match="ends in one of"):
        galaxy.write_catalogue(table, tmp_path / "t.txt")
    with pytest.raises(DataError, match="cannot write"):
        galaxy.write_catalogue(table, tmp_path / "nowhere" / "t.fits")
    with pytest.raises(DataError, match="expected an astropy Table"):
        galaxy.write_catalogue([1], tmp_path / "t.fits")
    (tmp_path / "t.csv").write_text("kept")
    table["vectors"] = np.zeros((3, 2))
    with pytest.raises(DataError, match="cannot write"):
        galaxy.write_catalogue(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "kept"
    assert os.listdir(tmp_path) == ["t.csv"]


@pytest.mark.parametrize("suffix", [".fits", ".h5", ".ecsv"])
def test_files_that_are_no_tables(suffix, tmp_path):
    path = tmp_path / f"t{suffix}"
    with pytest.raises(DataError, match="no such file"):
        galaxy.read_catalogue(path)
    path.write_bytes(b"\0 nothing of use\n")
    with pytest.raises(DataError, match="not readable as") as caught:
        galaxy.read_catalogue(path)
    assert path.name in str(caught.value)


def ids(kind):
    values = ["7", "x", "12", "0012"]
    if kind == "text":
        return Column(["12", " x ", "7", "never"]), values
    if kind == "bytes":
        return Column(np.array([b"12", b"x", b"7", b"never"])), values
    if kind == "whole":
        return Column(np.array([12, 99, 7, 5], ">i8")), values
    if kind == "masked":
        return MaskedColumn([12, 99, 7, 7], mask=[0, 0, 0, 1]), values
    return Column([12.0, np.nan, 7.0, np.nan]), values


@pytest.mark.parametrize("kind", ["text", "bytes", "whole", "masked", "float"])
def test_rows_are_joined_by_id_whatever_holds_it(kind):
    column, values = ids(kind)
    other = Table({"number": column, "redshift": np.array([0.1, 0.2, 0.3, 0.4], ">f4")})
    found = galaxy.join(Table({"id": values}), other, "number")
    lone = 0.2 if kind in ("text", "bytes") else np.nan
    np.testing.assert_allclose(found["redshift"], [0.3, lone, 0.1, np.nan], rtol=1e-6)
    assert found["redshift"].dtype.isnative
    assert list(found["id"]) == values
    assert "number" not in found.colnames


def test_ids_agree_however_their_accents_are_stored():
    """File names of some systems have letters and accents apart."""
    apart, together = "galaxie-e\u0301toile\u0301e", "galaxie-\u00e9toil\u00e9e"
    for own, other in ((apart, together), (together, apart)):
        found = galaxy.join(Table({"id": [own, "b"]}), Table({"id": [other], "z": [0.5]}))
        np.testing.assert_array_equal(found["z"], [0.5, np.nan])
        assert found["id"][0] == own
    with pytest.raises(DataError, match="twice"):
        galaxy.join(Table({"id": ["b"]}), Table({"id": [apart, together], "z": [0.5, 1]}))


def test_columns_keep_their_kind_where_every_row_has_a_value():
    other = Table(
        {
            "id": ["a", "b", "c"],
            "count": np.array([1, 2, 3], np.int16),
            "huge": np.array([2**60 + 1, 2, 3]),
            "flag": [True, False, True],
            "name": np.array([b"first", b"second", b"third"]),
            "bound": [7.0, 8.0, 9.0],
            "pair": np.arange(6).reshape(3, 2),
        }
    )
    other["bound"].unit = "mag"
    table = Table({"id": ["c", "a"], "bound": [0.5, 0.25]})
    found = galaxy.join(table, other)
    assert found["count"].dtype == np.int16
    assert list(found["count"]) == [3, 1]
    assert list(found["flag"]) == [True, True]
    assert found["huge"][1] == 2**60 + 1
    assert list(found["name"]) == ["third", "first"]
    assert list(found["bound"]) == [0.5, 0.25]
    assert list(found["bound_joined"]) == [9.0, 7.0]
    assert found["bound_joined"].unit == "mag"
    np.testing.assert_array_equal(found["pair"], [[4, 5], [0, 1]])
    assert table.colnames == ["id", "bound"]

    found = galaxy.join(Table({"id": ["c", "z", "a"]}), other)
    np.testing.assert_array_equal(found["count"], [3, np.nan, 1])
    np.testing.assert_array_equal(found["flag"], [1, np.nan, 1])
    assert list(found["huge"]) == ["3", "", str(2**60 + 1)]
    assert list(found["name"]) == ["third", "", "first"]
    np.testing.assert_array_equal(found["pair"], [[4, 5], [np.nan, np.nan], [0, 1]])


def test_tables_that_cannot_be_joined():
    table = Table({"id": ["a", "b"]})
    faults = [
        (Table({"objid": ["a"]}), "no column 'id'"),
        (Table({"id": ["a", "b", "a"]}), "'a' twice, in rows 1 and 3"),
        (Table({"id": ["x", "y"]}), "none of the ids"),
        (Table({"id": ["x"][:0]}), "must hold ids|none of the ids"),
        (Table({"id": [0.5, 1.0]}), "texts or whole numbers"),
        (Table({"id": [[1, 2], [3, 4]]}), "texts or whole numbers"),
        (Table({"id": ["a", "b"], "when": Time([5e4, 5e4], format="mjd")}), "'when'"),
    ]
    for other, says in faults:
        with pytest.raises(DataError, match=says):
            galaxy.join(table, other)
    columns = {"id": ["a", "b"], "mass": [1.0, 2.0]}
    for pair in ((table, columns), (columns, table), (table, None), ([1], table)):
        with pytest.raises(DataError, match=r"must be an astropy Table, .*from_pandas") as message:
            galaxy.join(*pair)
        assert "\n" not in str(message.value)
    assert galaxy.join(table, Table(columns)).colnames == ["id", "mass"]


def test_astropy_is_imported_only_when_it_is_needed():
    code = "import sys, layerkit.cli.main; sys.exit('astropy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_ids_that_begin_with_zeros_stay_what_they_are(tmp_path):
    """As whole numbers they would be other ids, and their rows lost where tables are joined."""
    path = tmp_path / "a.csv"
    catalogue = Table({"id": ["0001", "0123", "1000"], "flux": [1.0, 2.0, 3.0], "n": [1, 2, 30]})
    galaxy.write_catalogue(catalogue, path)
    for mark in (b"", codecs.BOM_UTF8):  # which spreadsheets put in front
        path.write_bytes(mark + path.read_bytes())
        back = galaxy.read_catalogue(path)
        assert back.colnames == ["id", "flux", "n"]
        assert list(back["id"]) == list(catalogue["id"])
        assert back["n"].dtype.kind == "i"
        joined = galaxy.join(catalogue, back)
        np.testing.assert_array_equal(joined["flux_joined"], catalogue["flux"])


def test_texts_of_parts_in_csv_are_texts_in_every_part(tmp_path):
    """Ids that are numbers in one part and not in another, and reasons that one part lacks."""
    tables = [
        Table({"id": ["0012", "7"], "file": ["a", "b"], "reason": ["", ""], "kl": [1.0, 2.0]}),
        Table({"id": ["12E5", "8"], "file": ["1", "2"], "reason": ["", "bad"], "kl": [3.0, 4.0]}),
        Table({"id": ["x"], "file": ["True"], "reason": ["bad"], "kl": [np.nan]}),
    ]
    names = [f"part-{k}.csv" for k in range(3)]
    for name, table in zip(names, tables, strict=True):
        galaxy.write_catalogue(table, tmp_path / name)
        (tmp_path / name).with_suffix(".json").write_text("{}")
    parts = {"parts": [{"file": name} for name in names]}
    (tmp_path / "index.json").write_text(json.dumps(parts))
    found = galaxy.read_catalogue(tmp_path)
    for name in ("id", "file", "reason", "kl"):
        np.testing.assert_array_equal(found[name], np.concatenate([t[name] for t in tables]))
    blank = galaxy.read_catalogue(tmp_path / names[0])["reason"]
    assert list(blank) == ["", ""]
