"""Settings of a run: the values they take, and one list of them for all who give them."""

import argparse
import dataclasses
import inspect
import re

import numpy as np
import pytest

from layerkit import galaxy
from layerkit.cli.commands.galaxy.model.train import add_options
from layerkit.errors import DataError, LayerkitError, SnapshotError
from layerkit.galaxy.training.resuming import Stretches, saved_settings
from layerkit.galaxy.training.settings import RULES, Settings, check_settings, settings_of


def test_call_command_and_settings_have_the_same_names():
    keywords = set(inspect.signature(galaxy.train).parameters)
    parser = argparse.ArgumentParser()
    add_options(parser)
    options = vars(parser.parse_args([]))
    del options["band"]  # which becomes a part of hdu
    assert keywords == set(options) == {*RULES, "out", "resume"}
    assert {name for name, value in options.items() if value is not None} == {"out"}


def test_the_defaults_that_are_documented_are_those_that_are_used():
    parser = argparse.ArgumentParser()
    add_options(parser)
    helps = {action.dest: action.help for action in parser._actions}
    documented = inspect.getdoc(galaxy.train)
    checked = 0
    for field in dataclasses.fields(Settings):
        if type(field.default) not in (int, float) or not RULES.get(field.name):
            continue
        entry = re.search(rf"^    {field.name}: (.*(\n     .*)*)", documented, re.MULTILINE)[1]
        assert re.search(rf"default {field.default}\b|default 1; as", entry), entry
        assert f"(default: {field.default}" in helps[field.name]
        checked += 1
    assert checked >= 6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data", ""),
        ("data", 3),
        ("held_out", 0),
        ("held_out", True),
        ("held_out", 2.5),
        ("hdu", -1),
        ("hdu", " "),
        ("net", ""),
        ("set", [("hidden", 5)]),
        ("set", {"no name": 5}),
        ("set", {"hidden": object()}),
        ("set", {"hidden": np.arange(3)}),
        ("batch", 0),
        ("batch", 7.0),
        ("batch", "7"),
        ("rate", 0),
        ("rate", float("nan")),
        ("final_rate", -1e-9),
        ("warm_up", -1),
        ("centre", 1),
        ("augment", "turn"),
        ("keep", ["best"]),
        ("refine", 1_000_001),
        ("importance_samples", 0),
        ("backend", "tpu"),
        ("seed", -1),
        ("seed", 2**63),
        ("tiny", "yes"),
        ("out", ""),
        ("out", 3),
        ("resume", "yes"),
        ("iteration", 5),
    ],
)
def test_a_bad_setting_is_named_before_anything_is_done(name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LayerkitError, match="path of a file" if name == "out" else name):
        galaxy.train(**{name: value})
    assert not any(tmp_path.iterdir())


def test_epochs_and_iterations_are_not_given_both(tmp_path):
    with pytest.raises(DataError, match="not both"):
        galaxy.train(out=tmp_path / "out", epochs=1, iterations=2)


def test_settings_of_the_net_come_back_as_they_were_given():
    given = {
        "a": 5,
        "b": "relu",
        "c": "5",
        "d": (1, "x"),
        "e": None,
        "f": 1e-3,
        "g": True,
        "h": [2, 3],
        "i": "[1, 2",
    }
    text = check_settings({"set": {**given, "j": np.int64(7)}})["set"]
    assert all(type(value) is str for value in text.values())
    found = Settings(set=text).net_values()
    assert found == {**given, "j": 7}
    assert [type(found[k]) for k in given] == [type(v) for v in given.values()]


def test_a_resumed_run_keeps_its_settings_and_takes_new_ones():
    first = settings_of({"epochs": 3, "batch": 7, "set": {"hidden": "5"}}, {}, "first", False)
    saved = saved_settings("model.h5", {"settings": first.kept()})
    assert settings_of({}, saved, "again", True).kept() == first.kept()
    second = settings_of({"iterations": 9, "set": {"latent": "2"}}, saved, "second", True)
    assert (second.epochs, second.iterations, second.batch) == (None, 9, 7)
    assert second.net_values() == {"hidden": 5, "latent": 2}
    assert second.command == "first && second"
    assert second.net.endswith("galaxy_gdae.py")


def test_held_out_counts_of_earlier_versions_are_read():
    """They were saved as text; paths are absolute, so no path looks like a number."""
    saved = {"settings": {"held_out": "6", "set": {}, "command": "x"}}
    assert saved_settings("model.h5", saved)["held_out"] == 6
    with pytest.raises(SnapshotError, match=r"model\.h5"):
        saved_settings("model.h5", {"settings": {"held_out": "0", "set": {}, "command": "x"}})


def test_steps_of_a_run():
    assert Settings(iterations=7).steps(1000) == 7
    assert Settings(epochs=2, batch=64).steps(100) == 4  # 200 galaxies, 64 a step
    assert Settings().steps(100) == 2500
    assert Settings().steps(64_000) == 100_000
    assert Settings(tiny=True).steps(10) == 64


def test_stretches_count_galaxies_and_name_changes():
    stretches = Stretches([])
    stretches.begin(0, Settings(batch=7))
    stretches.begin(5, Settings(batch=7))
    stretches.begin(10, Settings(batch=2, clip=3.0))
    assert stretches.galaxies(16) == 10 * 7 + 6 * 2
    assert stretches.changes() == "--batch 7 until iteration 10; --clip none until iteration 10"
