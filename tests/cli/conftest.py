"""The `layerkit` command, run in this process."""

import sys

import pytest

from layerkit.cli.main import program


@pytest.fixture
def layerkit(monkeypatch, capsys, tmp_path):
    """Runs a command line in a folder of its own; returns status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["layerkit", *map(str, words)])
        capsys.readouterr()  # what fixtures print
        with pytest.raises(SystemExit) as ended:
            program()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return run
