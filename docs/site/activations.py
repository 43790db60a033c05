"""Hook of MkDocs: a picture of the activations, drawn by the layers themselves."""

import io

import numpy as np
from matplotlib.figure import Figure
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import layerkit as lk
from layerkit.layers.elementwise.neuron import Neuron

NAME = "activations.svg"
PLACE = "<!-- activations -->"
CURVE, GREY = "#3f6fb5", "#888888"  # to be seen on white and on black


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the picture."""
    files.append(File.generated(config, NAME, content=draw()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show the picture in its place, which readers of the repository do not see."""
    return markdown.replace(PLACE, f"![Each activation y(x), and its derivative, dashed]({NAME})")


def draw() -> str:
    """Return the picture: y, and dashed its derivative, both by the layer."""
    x = np.linspace(-4, 4, 201)
    figure = Figure((8, 3.4), layout="constrained")
    places = figure.subplots(2, 5).flat
    for axes, (name, layer) in zip(places, Neuron.registry.items(), strict=False):
        # Behind a layer with parameters, as a gradient is needed there.
        layers = [lk.layers.Input("input", shape=(1,)), lk.layers.Affine("x", "input")]
        net = lk.Net([*layers, layer("y", "x")], batch_size=len(x))
        net.forward(input=x[:, None])
        net.backward(y=np.ones((len(x), 1)))
        y, slope = net.blobs["y"].data, net.blobs["x"].diff
        axes.axhline(0, color=GREY, linewidth=0.5)
        axes.axvline(0, color=GREY, linewidth=0.5)
        axes.plot(x, y, color=CURVE)
        axes.plot(x, slope, color=CURVE, linewidth=0.8, linestyle="--")
        axes.set(xlim=(-4, 4), ylim=(-1.6, 4))
        axes.set_title(f'"{name}"', color=GREY, fontsize=9)
        axes.tick_params(colors=GREY, labelsize=7)
        for spine in axes.spines.values():
            spine.set_color(GREY)
    for axes in figure.axes[len(Neuron.registry) :]:
        axes.remove()
    picture = io.StringIO()
    figure.savefig(picture, format="svg", transparent=True)
    return picture.getvalue()
