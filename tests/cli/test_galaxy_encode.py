"""`layerkit galaxy encode`: the table that it writes, and one line for bad input."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from linear_galaxies import save_run, shapes, write_pictures

from layerkit import galaxy
from layerkit.cli.main import program


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with pictures and a run."""
    rng = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("encode")
    write_pictures(rng, folder / "pictures", shapes(rng, 16))
    save_run(folder, folder / "run", folder / "pictures", "4")
    return folder


@pytest.fixture
def layerkit(monkeypatch, capsys, tmp_path, there):
    """Runs a command line in a folder of its own; returns status, output and errors."""
    shutil.copytree(there, tmp_path, dirs_exist_ok=True)
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere" / "t.csv")
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["layerkit", "galaxy", "encode", *map(str, words)])
        capsys.readouterr()  # what fixtures print
        with pytest.raises(SystemExit) as ended:
            program()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return run


@pytest.mark.parametrize("name", ["t.fits", "t.ecsv", "t.csv", "t.h5"])
def test_the_table_is_that_of_the_library(layerkit, there, name):
    words = "pictures", "--model", "run", "--refine", 2, "--draws", 1, "--batch", 5
    code, out, err = layerkit(*words, "--out", name)
    assert code == 0, err
    expected = galaxy.encode(there / "run", there / "pictures", refine=2, draws=1, batch=5)
    found = galaxy.read_catalogue(name)
    assert found.colnames == expected.colnames
    for column in set(expected.colnames) - {"reason"}:
        np.testing.assert_array_equal(found[column], expected[column])
    assert f"{len(expected)} pictures, 16 encoded" in out
    assert "unusable: blank" in out


def test_columns_of_a_table_are_joined(layerkit):
    Table({"name": ["g006", "g000"], "z": [0.5, 0.25]}).write("own.csv", format="ascii.csv")
    words = "pictures", "--model", "run/model.h5", "--limit", 4, "--out", "t.fits"
    code, out, err = layerkit(*words, "--join", "own.csv", "--id-column", "name")
    assert code == 0, err
    assert "1 of 4 rows have one in " in out
    found = galaxy.read_catalogue("t.fits")
    np.testing.assert_array_equal(found["z"], [0.25, np.nan, np.nan, np.nan])
    assert list(found["id"]) == ["g000", "g001", "g003", "g004"]


@pytest.mark.parametrize("ids", [["G000", "G001"], ["g000.fits", "g001.fits"]])
def test_a_catalogue_is_not_lost_where_no_id_agrees(layerkit, ids):
    Table({"id": ids, "z": [0.5, 0.25]}).write("own.csv", format="ascii.csv", overwrite=True)
    words = "pictures", "--model", "run", "--limit", 4, "--out", "t.csv", "--join", "own.csv"
    code, _, err = layerkit(*words)
    assert code == 2
    assert f"such as '{ids[0]}', is one of the pictures', such as 'g000'; " in err
    assert "t.csv is the catalogue without its columns" in err
    found = galaxy.read_catalogue("t.csv")
    assert list(found["id"]) == ["g000", "g001", "g003", "g004"]
    assert "z" not in found.colnames


def test_a_table_that_the_format_cannot_hold_is_refused_before_the_work(layerkit):
    own = Table({"id": ["g000", "g001"], "pair": [[0.5, 1.0], [0.25, 2.0]]})
    own.write("pairs.fits", overwrite=True)
    words = "pictures", "--model", "run", "--limit", 4, "--join", "pairs.fits"
    code, out, err = layerkit(*words, "--out", "pairs.csv")
    assert code == 2
    assert "pairs.csv cannot hold its columns" in err
    assert "encode" not in out
    code, _, err = layerkit(*words, "--out", "joined.fits")
    assert code == 0, err
    found = galaxy.read_catalogue("joined.fits")["pair"]
    np.testing.assert_array_equal(found[:2], own["pair"])


BAD = [
    (["pictures", "--model", "run", "--out", "gone.csv"], "cannot be written (No such file"),
    (["pictures", "--model", "run", "--out", "t.txt"], "ends in one of .fits"),
    (["pictures", "--model", "run", "--out", "no/t.fits"], "no such folder"),
    (["pictures", "--model", "run", "--out", "run/model.h5"], "the file that --model names"),
    (["pictures", "--model", "run", "--out", "pictures/g.fits"], "among the pictures"),
    (["nothing", "--model", "run", "--out", "t.fits"], "no such file"),
    (["pictures", "--model", "pictures", "--out", "t.fits"], "no snapshot at"),
    (["pictures", "--model", "run/galaxies.h5", "--out", "t.fits"], "galaxies.h5"),
    (["pictures", "--model", "run", "--out", "t.fits", "--join", "none.csv"], "no such file"),
    (["pictures", "--model", "run", "--out", "t.fits", "--join", "own.csv"], "no column 'id'"),
    (["pictures", "--model", "run", "--out", "own.csv", "--join", "own.csv"], "that --join names"),
    (["pictures", "--model", "run", "--out", "t.fits", "--id-column", "z"],
     "names a column of --join"),
    (["pictures", "--model", "run", "--out", "t.fits", "--refine", "-1"], "from 0"),
    (["pictures", "--model", "run", "--out", "t.fits", "--batch", "0"], "from 1"),
    (["pictures", "--model", "zoo", "--out", "t.fits"], "no model that comes with layerkit"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "says"), BAD)
def test_bad_input_is_one_line_and_status_2(layerkit, words, says):
    Path("own.csv").write_text("name,z\ng000,0.25\n")
    Path("pictures", "g.fits").write_text("a picture, say")
    before = sorted(os.listdir())
    code, out, err = layerkit(*words)
    assert code == 2, out
    assert says in err
    assert len([line for line in err.splitlines() if "error:" in line]) == 1, err
    assert sorted(os.listdir()) == before


def test_an_interrupted_command_leaves_no_half_table(layerkit, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Table, "write", lambda self, path, **_: Path(path).write_text("half"))
    monkeypatch.setattr("os.replace", interrupted)
    Path("t.fits").write_text("earlier")
    before = sorted(os.listdir())
    code, _, err = layerkit("pictures", "--model", "run", "--limit", 2, "--out", "t.fits")
    assert code == 130, err
    assert sorted(os.listdir()) == before
    assert Path("t.fits").read_text() == "earlier"


def test_positions_in_a_field_are_rows(layerkit):
    from astropy.io import fits
    from linear_galaxies import ellipse

    rng = np.random.default_rng(5)
    image = rng.normal(50, 1, (240, 120))
    for top in (0, 120):
        image[top : top + 120] += ellipse(120, 7, 0.6, 30.0, peak=900.0, sky=0.0)
    fits.PrimaryHDU(image).writeto("field.fits")
    Table({"name": ["b", "a"], "x": [59.5, 59.5], "y": [179.5, 59.5], "z": [1.5, 0.5]}).write(
        "own.csv", format="ascii.csv"
    )
    code, _, err = layerkit(
        "--image", "field.fits", "--positions", "own.csv", "--id-column", "name", "--cutout", 100,
        "--pixel-scale", 0.2, "--join", "own.csv", "--model", "run", "--out", "t.csv",
    )  # fmt: skip
    assert code == 0, err
    found = galaxy.read_catalogue("t.csv")
    assert list(found["id"]) == ["b", "a"]
    assert list(found["z"]) == [1.5, 0.5]
    np.testing.assert_allclose(found["crop_y"] + found["crop_side"] / 2, [179.5, 59.5], atol=2)
    np.testing.assert_allclose(
        found["half_light_radius_arcsec"], 0.2 * found["half_light_radius"], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "got none"),
        (["pictures", "--paths", "own.csv"], "got PICTURES and --paths"),
        (["--positions", "own.csv"], "--image and --positions go together"),
        (["pictures", "--image", "f.fits"], "--image and --positions go together"),
        (["pictures", "--cutout", 9], "--cutout 9: of --positions"),
        (["pictures", "--path-column", "p"], "--path-column p: names a column"),
        (["pictures", "--pixel-scale", 0], "must be a number above zero"),
        (["--paths", "none.csv"], "no such file"),
        (["--paths", "own.csv"], "no column 'path'"),
        (["--image", "none.fits", "--positions", "own.csv"], "cannot be read"),
    ],
)
def test_sources_that_are_none_are_one_line(layerkit, words, reason):
    Table({"x": [1.0], "y": [2.0]}).write("own.csv", format="ascii.csv")
    code, _, err = layerkit(*words, "--model", "run", "--out", "t.csv")
    assert code == 2
    assert reason in err.splitlines()[-1]
    assert not Path("t.csv").exists()


def test_the_file_beside_a_table_repeats_it(layerkit):
    words = "pictures", "--model", "run", "--draws", 2, "--limit", 5, "--pixel-scale", 0.5
    assert layerkit(*words, "--out", "t.csv")[0] == 0
    first = Path("t.csv").read_bytes()
    Path("t.csv").unlink()
    assert layerkit("--config", "t.csv.toml")[0] == 0
    assert Path("t.csv").read_bytes() == first
    # The command line counts before the file.
    assert layerkit("--config", "t.csv.toml", "--limit", 3, "--out", "few.csv")[0] == 0
    assert len(galaxy.read_catalogue("few.csv")) == 3
    Table({"path": ["pictures/g000.png"]}).write("own.csv", format="ascii.csv")
    code, _, err = layerkit("--config", "t.csv.toml", "--paths", "own.csv", "--out", "own.h5")
    assert code == 0, err
    assert len(galaxy.read_catalogue("own.h5")) == 1


def test_files_of_settings_that_are_none_are_one_line(layerkit):
    words = "pictures", "--model", "run", "--out", "t.csv", "--config"
    for text, reason in {
        "modle = 'run'": "unknown key 'modle'; did you mean",
        "draws = 'many'": "draws: invalid int value: 'many'",
        "draws = -1": "draws: must be from 0",
        "draws = true": "draws: must be a number or a text, got True",
        "backend = 'abacus'": "backend: must be one of auto, numpy, cupy",
        "draws = ": "not TOML",
        "path-column = 'a'\npath_column = 'b'": "is set twice",
        "[draws]\na = 1": "draws: must be a number or a text",
    }.items():
        Path("c.toml").write_text(text)
        code, _, err = layerkit(*words, "c.toml")
        assert (code, err.count("\n")) == (2, 1), err
        assert reason in err
    code, _, err = layerkit(*words, "none.toml")
    assert code == 2
    assert "none.toml: no such file" in err
    Path("c.toml").write_bytes(b"\xff\xfe")
    assert layerkit(*words, "c.toml")[0] == 2


def test_parts_go_into_a_folder_and_are_resumed(layerkit, there):
    words = "pictures", "pictures", "--model", "run", "--draws", 1, "--parts", 6, "--out", "all"
    code, out, err = layerkit(*words)
    assert code == 0, err
    expected = galaxy.encode(there / "run", there / "pictures", draws=1)
    assert f"{2 * len(expected)} pictures, 32 encoded" in out
    assert list(galaxy.read_catalogue("all")["id"]) == 2 * list(expected["id"])
    Path("all/part-000001.fits").unlink()
    code, again, err = layerkit(*words, "--resume")
    assert (code, again) == (0, out), err
    code, _, err = layerkit("pictures", "pictures", "--model", "run", "--out", "t.fits")
    assert code == 2
    assert "need --parts N" in err
