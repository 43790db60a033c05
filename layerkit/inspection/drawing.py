"""Drawings of nets: layers as boxes, blobs as the arrows between them; Graphviz, Mermaid, SVG."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from layerkit.errors import NetError
from layerkit.system.files import path_of, write_atomically

if TYPE_CHECKING:
    from layerkit.net import Net

SECONDS = 60  # that Graphviz may take
COLOURS = {"data": "#d9e8f6", "loss": "#f8d7d3", "metric": "#f7ecc9", "layer": "#ffffff"}


class Drawing:
    """A drawing of a net: in Graphviz's language, in Mermaid's, or as a picture.

        print(net.draw())  # Graphviz
        net.draw().save("net.svg")

    A notebook shows it as a picture where the program `dot` of Graphviz is installed.

    Args:
        net: the net.

    Attributes:
        boxes: (kind, name, type and number of parameters) of each layer, in the order in which
            they run; the kind is "data", "loss", "metric" or "layer".
        arrows: (number of a box, of another, blob, its shape), for each bottom of a layer.
    """

    def __init__(self, net: Net):
        numbers = {name: i for i, name in enumerate(net.layers)}
        made = {top: layer.name for layer in net.layers.values() for top in layer.tops}
        self.boxes = [(_kind(x), x.name, _words(x)) for x in net.layers.values()]
        self.arrows = [
            (numbers[made[bottom]], numbers[layer.name], bottom, net.blobs[bottom].shape)
            for layer in net.layers.values()
            for bottom in layer.bottoms
        ]

    @property
    def dot(self) -> str:
        """The drawing in the language of Graphviz."""
        lines = [
            "digraph net {",
            '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11];',
            '  edge [fontname="Helvetica", fontsize=9];',
        ]
        for i, (kind, name, words) in enumerate(self.boxes):
            label = f"{_dot(name)}\\n{_dot(words)}"
            lines.append(f'  n{i} [label="{label}", fillcolor="{COLOURS[kind]}"];')
        for a, b, blob, shape in self.arrows:
            lines.append(f'  n{a} -> n{b} [label="{_dot(blob)} {_sizes(shape)}"];')
        return "\n".join([*lines, "}"]) + "\n"

    @property
    def mermaid(self) -> str:
        """The drawing in the language of Mermaid, as Markdown on GitHub shows it."""
        lines = ["flowchart TD"]
        for i, (kind, name, words) in enumerate(self.boxes):
            lines.append(f'  n{i}["{_mermaid(name)}<br/>{_mermaid(words)}"]:::{kind}')
        for a, b, blob, shape in self.arrows:
            lines.append(f'  n{a} -->|"{_mermaid(blob)} {_sizes(shape)}"| n{b}')
        for kind, colour in COLOURS.items():
            lines.append(f"  classDef {kind} fill:{colour},stroke:#555,color:#000")
        return "\n".join(lines) + "\n"

    @property
    def svg(self) -> str:
        """The drawing as a picture.

        Raises:
            NetError: the program `dot` of Graphviz is not installed, or fails.
        """
        program = shutil.which("dot")
        if program is None:
            raise NetError(
                "draw: a picture needs the program dot of Graphviz (https://graphviz.org), which "
                "is not installed; files *.dot and *.mmd are text, and so are .dot and .mermaid"
            )
        try:
            done = subprocess.run(
                [program, "-Tsvg"], input=self.dot.encode(), capture_output=True, timeout=SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NetError(f"draw: {program} failed: {error}") from error
        if done.returncode:
            reason = " ".join(done.stderr.decode(errors="replace").split())
            raise NetError(f"draw: {program} failed: {reason}")
        return done.stdout.decode()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the drawing into a file: "*.dot" or "*.gv", "*.mmd", or "*.svg".

        Raises:
            NetError: another suffix, no Graphviz for a picture, or a file that cannot be written.
        """
        path = path_of(path, NetError)
        texts = {".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".svg": "svg"}
        if path.suffix.lower() not in texts:
            raise NetError(
                f"draw: {path}: the suffix must be {', '.join(texts)}, got {path.suffix!r}"
            )
        content = getattr(self, texts[path.suffix.lower()]).encode()
        try:
            write_atomically(path, lambda temporary: temporary.write_bytes(content))
        except OSError as error:
            raise NetError(f"draw: cannot write {path}: {error.strerror or error}") from error

    def __str__(self) -> str:
        return self.dot

    __repr__ = __str__

    def _repr_mimebundle_(self, **settings: Any) -> dict[str, str]:
        """Return what a notebook can show."""
        found = {"text/plain": self.dot}
        try:
            found["image/svg+xml"] = self.svg
        except NetError:
            found["text/markdown"] = f"```mermaid\n{self.mermaid}```"
        return found


def _kind(layer: Any) -> str:
    if layer.is_loss or layer.is_metric:
        return "loss" if layer.is_loss else "metric"
    return "layer" if layer.bottoms else "data"


def _words(layer: Any) -> str:
    count = sum(p.size for p in layer.parameters.values())
    return type(layer).__name__ + (f", {count:,} parameters" if count else "")


def _sizes(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _dot(text: str) -> str:
    """Escape a text within quotes of Graphviz; HTML entities stay as they are written."""
    one = " ".join(text.split())
    return one.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def _mermaid(text: str) -> str:
    """Escape a text within quotes of Mermaid: all but letters, digits and harmless signs."""
    one = " ".join(text.split())
    return "".join(c if c.isalnum() or c in " _-./,()" else f"#{ord(c)};" for c in one)
