"""Drawings of nets, read back by rules of the two languages."""

import os
import re
import shutil

import numpy as np
import pytest

import layerkit as lk
from layerkit import layers as L
from layerkit.errors import NetError

ODD = 'a "b" \\ <c> & #9; [d]|{e}\nf;'


def net_of():
    return lk.Net(
        [
            L.MemoryData("x", data=np.ones((3, 4))),
            L.Input("t", shape=()),
            L.Dense(ODD, "x", units=5, tops='h "0"'),
            L.Add("sum", 'h "0"', 'h "0"'),
            L.SoftmaxLoss("loss", "sum", "t"),
            L.Accuracy("right", "sum", "t"),
        ]
    )


ARROWS = [  # of a box to a box, with a blob of a shape
    ("x", "dense", "x (4)"), ("dense", "sum", 'h "0" (5)'), ("dense", "sum", 'h "0" (5)'),
    ("sum", "loss", "sum (5)"), ("t", "loss", "t ()"), ("sum", "right", "sum (5)"),
    ("t", "right", "t ()"),
]  # fmt: skip


def unquoted(text):
    """A string of Graphviz within quotes: two escapes of ours, and entities of HTML."""
    return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], text).replace("&amp;", "&")


def test_graphviz_text():
    text = net_of().draw().dot
    assert text.startswith("digraph net {\n")
    assert text.endswith("}\n")
    string = r'"((?:[^"\\]|\\.)*)"'
    boxes = re.findall(rf'^  (n\d+) \[label={string}, fillcolor="(#\w+)"\];$', text, re.M)
    names = {number: unquoted(label) for number, label, _ in boxes}
    assert sorted(names.values()) == sorted(
        [
            "x\nMemoryData", "t\nInput", " ".join(ODD.split()) + "\nDense, 25 parameters",
            "sum\nAdd", "loss\nSoftmaxLoss", "right\nAccuracy",
        ]
    )  # fmt: skip
    short = {n: label.split("\n")[0] for n, label in names.items()}
    short = {n: "dense" if name.startswith("a ") else name for n, name in short.items()}
    arrows = re.findall(rf"^  (n\d+) -> (n\d+) \[label={string}\];$", text, re.M)
    assert sorted((short[a], short[b], unquoted(c)) for a, b, c in arrows) == sorted(ARROWS)
    colours = {short[number]: colour for number, _, colour in boxes}
    assert colours["x"] == colours["t"] != colours["sum"] == colours["dense"]
    assert len({colours[name] for name in ("x", "sum", "loss", "right")}) == 4
    assert len(text.splitlines()) == 4 + len(boxes) + len(arrows)
    assert str(net_of().draw()) == text


def test_mermaid_text():
    text = net_of().draw().mermaid

    def plain(label):
        assert not set(label) & set('"[]{}|<>&\\')
        return re.sub(r"#(\d+);", lambda m: chr(int(m[1])), label)

    lines = text.splitlines()
    assert lines[0] == "flowchart TD"
    boxes = [re.fullmatch(r'  (n\d+)\["(.*)<br/>(.*)"\]:::(\w+)', line) for line in lines]
    names = {m[1]: plain(m[2]) for m in boxes if m}
    assert sorted(names.values()) == sorted(
        ["x", "t", " ".join(ODD.split()), "sum", "loss", "right"]
    )
    short = {n: "dense" if name.startswith("a ") else name for n, name in names.items()}
    found = [re.fullmatch(r'  (n\d+) -->\|"(.*)"\| (n\d+)', line) for line in lines]
    arrows = [(short[m[1]], short[m[3]], plain(m[2])) for m in found if m]
    assert sorted(arrows) == sorted(ARROWS)
    kinds = {short[m[1]]: m[4] for m in boxes if m}
    assert kinds == {
        "x": "data", "t": "data", "dense": "layer", "sum": "layer", "loss": "loss",
        "right": "metric",
    }  # fmt: skip
    assert sum("classDef" in line for line in lines) == 4


@pytest.fixture
def dot(tmp_path, monkeypatch):
    """Puts a program called dot first, or none."""

    def make(script):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "dot").unlink(missing_ok=True)
        monkeypatch.setenv("PATH", str(folder))
        if script is not None:
            (folder / "dot").write_text(f"#!/bin/sh\n{script}\n")
            (folder / "dot").chmod(0o755)

    return make


@pytest.mark.skipif(os.name != "posix", reason="a program of a shell")
def test_pictures_are_made_by_graphviz(dot, tmp_path):
    drawing = net_of().draw()
    dot('[ "$1" = -Tsvg ] && echo "<svg>" && /bin/cat && echo "</svg>"')
    assert drawing.svg == f"<svg>\n{drawing.dot}</svg>\n"
    for name, content in (
        ("a.svg", drawing.svg), ("a.dot", drawing.dot), ("a.GV", drawing.dot),
        ("a.mmd", drawing.mermaid),
    ):  # fmt: skip
        drawing.save(tmp_path / name)
        assert (tmp_path / name).read_text() == content
    shown = drawing._repr_mimebundle_()
    assert shown == {"text/plain": drawing.dot, "image/svg+xml": drawing.svg}
    dot("echo 'no such\nthing' >&2; exit 3")
    with pytest.raises(NetError, match="failed: no such thing") as error:
        drawing.save(tmp_path / "b.svg")
    assert "\n" not in str(error.value)
    dot(None)
    with pytest.raises(NetError, match=r"program dot of Graphviz.*not installed"):
        drawing.save(tmp_path / "b.svg")
    assert not (tmp_path / "b.svg").exists()
    shown = drawing._repr_mimebundle_()
    assert shown["text/markdown"] == f"```mermaid\n{drawing.mermaid}```"
    for name, words in (("a.png", "suffix must be .dot"), ("no/a.dot", "cannot write")):
        with pytest.raises(NetError, match=words) as error:
            drawing.save(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_itself_reads_the_text():
    assert net_of().draw().svg.count("<g ") >= 1 + 6 + len(ARROWS)
