"""Bars: what a notebook without widgets shows, and steps whose number is known or not."""

import sys
from types import ModuleType

import pytest
import tqdm

from layerkit.system import bars


@pytest.fixture
def notebook(monkeypatch):
    """A notebook without ipywidgets, as tqdm sees one, before anything has shown a bar."""
    shell = ModuleType("IPython")
    shell.get_ipython = type("ZMQInteractiveShell", (), {})
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", ModuleType("ipykernel.zmqshell"))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for name in ("auto", "autonotebook", "notebook"):
        monkeypatch.delitem(sys.modules, f"tqdm.{name}", raising=False)
    bars._kind.cache_clear()
    yield
    bars._kind.cache_clear()


def test_a_notebook_without_widgets_has_bars_of_text_and_no_warning(notebook, capsys):
    with bars.bar(3, "reading", "files") as moving:
        moving.update(3)
    assert isinstance(moving, tqdm.tqdm)
    assert "reading: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("known", [True, False])
def test_steps_are_counted(known, monkeypatch, capsys):
    monkeypatch.setattr(bars, "DELAY", 0)
    steps = bars.watched((k for k in range(4)), "reading", "files", total=4 if known else None)
    assert list(steps) == [0, 1, 2, 3]
    shown = capsys.readouterr().err
    assert ("4.00/4.00 [" in shown) == known
    assert "reading: " in shown
    assert list(bars.watched([1, 2], "reading", "files", shown=False)) == [1, 2]
    assert not capsys.readouterr().err
