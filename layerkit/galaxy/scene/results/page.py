"""A self-contained HTML page about a field: pictures, numbers and every source."""

from __future__ import annotations

import base64
import io
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.system.files import write_atomically

if TYPE_CHECKING:
    from layerkit.galaxy.scene.scene import Scene

MOST_STAMPS = 60
MOST_COLOURED = 3
MOST_MOVED = 3.0  # by which a band is brightened or dimmed, lest its noise be all that is seen


def write_page(path: Path, scene: Scene) -> None:
    """Write report.html: the field, the model, the residual, every source and the numbers."""
    table, field = scene.table, scene.field
    stars = int((table["p_star"] > 0.5).sum())
    style = files("layerkit.galaxy.report.page").joinpath("page.css").read_text(encoding="utf-8")
    tiles = [
        (f"{len(table)}", "sources"),
        (f"{stars}", "more likely stars"),
        (f"{scene.chi_square:.2f}", "mean squared residual over the noise's"),
        (f"{scene.width:.1f}", "pixels, full width of the PSF"),
    ]
    shown = "".join(f"<p><strong>{v}</strong><span>{escape(k)}</span></p>" for v, k in tiles)
    bands = ", ".join(b for b in field.filters if b) or "one band"
    size = f"{field.images.shape[2]} x {field.images.shape[1]} pixels, {bands}"
    notes = "".join(f"<li>{escape(note)}</li>" for note in scene.notes)
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(field.name)}: stars and galaxies</title><style>{style}</style></head>
<body><main class="field">
<header><h1>{escape(field.name)}</h1><p>{escape(size)}</p></header>
<div class="tiles">{shown}</div>
{f"<section><h2>Notes</h2><ul>{notes}</ul></section>" if notes else ""}
<section><h2>The field</h2><figure class="wide"><div class="plate"><span class="picture">
<img alt="Field, model and residual" src="{_field_figure(scene)}"></span></div>
<figcaption>The field less its background (the model
where pixels are masked), the model, and the residual in standard deviations of
each pixel's noise, from -5 (blue) to 5 (red). Rings are galaxies at their half-light ellipse,
crosses are sources that are more likely stars. Numbers are those of the catalogue.</figcaption>
</figure></section>
<section><h2>The sources</h2><figure class="wide"><div class="plate"><span class="picture">
<img alt="Every source" src="{_stamps_figure(scene)}"></span></div>
<figcaption>Each source, brightest first: data, model of all sources, residual.
{f"The first {MOST_STAMPS} of {len(table)}." if len(table) > MOST_STAMPS else ""}</figcaption>
</figure></section>
<section><h2>The catalogue</h2><div class="scroll">{_html_table(table)}</div>
<p class="note">Positions in pixels, the first centre at 0. Fluxes in the image's units. The
half-light radius, in pixels, and the ellipticity, 1 - b/a, are those of the galaxy before the PSF;
the angle is in degrees from x to y. Flags: 1 blended, 2 at the edge, 4 masked pixels, 8 fluxes
uncertain. Below each number is its standard deviation.</p></section>
</main></body></html>
"""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def _html_table(table: Any) -> str:
    """Return the catalogue as an HTML table, each number with its error below it."""
    names = [n for n in table.colnames if "_err" not in n]
    head = "".join(f"<th>{escape(n.replace('_', ' '))}</th>" for n in names)
    lines = []
    for row in table:
        cells = []
        for name in names:
            error = name + "_err"
            if name.startswith("flux"):
                error = "flux_err" + name[4:]
            value = row[name]
            if name in ("id", "flags"):
                cells.append(f"<td>{int(value)}</td>")
            elif name == "p_star" or error not in table.colnames:
                cells.append(
                    f"<td>{value:.5g}</td>" if name != "p_star" else f"<td>{value:.3f}</td>"
                )
            else:
                value, error = with_error(float(value), float(row[error]))
                cells.append(f"<td>{value}<small>{error}</small></td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<table class="catalogue"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def with_error(value: float, error: float) -> tuple[str, str]:
    """Return a number and its error as text, both to two digits of the error."""
    if not (np.isfinite(error) and error > 0 and np.isfinite(value)):
        return f"{value:.5g}", ""
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 8))
    return f"{value:.{digits}f}", f"&plusmn; {error:.{digits}f}"


def _picture(images: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return bands as red, green and blue, or grey for one band, by an asinh stretch."""
    scaled = np.nan_to_num(images / scales[:, None, None])
    chosen = [0]
    if len(images) >= MOST_COLOURED:
        chosen = [len(images) - 1 - round(i * (len(images) - 1) / 2) for i in range(3)]
    parts = np.stack([scaled[i] for i in chosen], axis=-1)
    light = np.maximum(parts.mean(axis=-1, keepdims=True), 1e-9)
    stretched = np.arcsinh(light / 3) / np.arcsinh(40.0)
    out = np.clip(parts / light * stretched, 0, 1)
    return out if out.shape[-1] == 3 else out[..., 0]


def scales_of(scene: Scene) -> np.ndarray:
    """Return a brightness for each band: its noise's, moved so that all light together is grey."""
    noise = np.array([np.median(w[w > 0]) ** -0.5 if (w > 0).any() else 1.0 for w in scene.weights])
    signal = scene.model.sum(axis=(1, 2)) / noise
    if len(noise) < MOST_COLOURED or (signal <= 0).any():
        return noise
    return noise * np.clip(signal / np.exp(np.log(signal).mean()), 1 / MOST_MOVED, MOST_MOVED)


def _values(scene: Scene) -> np.ndarray:
    """Return the field less its background, with the model where pixels are masked."""
    return scene.model + np.nan_to_num(scene.residual)


def _pull(scene: Scene) -> np.ndarray:
    """Return the residual of all bands in standard deviations, shape (height, width)."""
    pulls = np.nan_to_num(scene.residual) * np.sqrt(scene.weights)
    used = np.maximum((scene.weights > 0).sum(axis=0), 1)
    return pulls.sum(axis=0) / np.sqrt(used)


def _field_figure(scene: Scene) -> str:
    """Draw field, model and residual side by side, or below one another where they are wide."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse
    from matplotlib.patheffects import withStroke

    values = _values(scene)
    _, height, width = values.shape
    figure = Figure(figsize=(13.5, 4.5 * height / width + 0.4), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    scales = scales_of(scene)
    for axis, image, title in zip(
        axes,
        (_picture(values, scales), _picture(scene.model, scales), _pull(scene)),
        ("Field", "Model", "Residual"),
        strict=True,
    ):
        signed = {"cmap": "RdBu_r", "vmin": -5, "vmax": 5} if title == "Residual" else {}
        grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
        axis.imshow(image, origin="lower", interpolation="nearest", **(signed or grey))
        axis.set_title(title)
    few = len(scene.table) <= 80
    outline = withStroke(linewidth=1.6, foreground="k")  # numbers lie on bright sources, too
    for row in scene.table:
        if row["p_star"] > 0.5:
            axes[0].plot(row["x"], row["y"], "+", color="#ffb03b", ms=6, mew=0.9)
        else:
            ratio = np.sqrt(1 - row["ellipticity"])
            across = 2 * row["half_light_radius"]
            ring = Ellipse(
                (row["x"], row["y"]),
                max(across / ratio, 2),
                max(across * ratio, 2),
                angle=row["angle"],
                fill=False,
                color="#6fb9d2",
                lw=0.8,
            )
            axes[0].add_patch(ring)
        if few:
            axes[0].annotate(
                str(row["id"]),
                (row["x"], row["y"]),
                (4, 4),
                textcoords="offset points",
                color="w",
                fontsize=7,
                path_effects=[outline],
            )
    axes[0].set_xlim(-0.5, width - 0.5)
    axes[0].set_ylim(-0.5, height - 0.5)
    return _as_url(figure)


def _stamps_figure(scene: Scene) -> str:
    """Draw data, model and residual of each of the brightest sources."""
    from matplotlib.figure import Figure

    values, scales, pull = _values(scene), scales_of(scene), _pull(scene)
    shown = scene.table[:MOST_STAMPS]
    across = 4
    down = max(1, -(-len(shown) // across))
    figure = Figure(figsize=(13.5, 1.25 * down + 0.1), layout="constrained")
    axes = figure.subplots(down, 3 * across, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for n, row in enumerate(shown):
        half = int(np.clip(2 * scene.width + 2 * row["half_light_radius"], 8, 40))
        y, x = round(float(row["y"])), round(float(row["x"]))
        part = (
            slice(max(0, y - half), max(1, y + half + 1)),
            slice(max(0, x - half), max(1, x + half + 1)),
        )
        three = axes[n // across, 3 * (n % across) : 3 * (n % across) + 3]
        inner = (slice(None), *part)
        for axis, image in zip(
            three,
            (_picture(values[inner], scales), _picture(scene.model[inner], scales), pull[part]),
            strict=True,
        ):
            signed = image is not None and axis is three[2]
            limits = (-5, 5) if signed else (0, 1)
            axis.imshow(
                image,
                origin="lower",
                cmap="RdBu_r" if signed else "gray",
                vmin=limits[0],
                vmax=limits[1],
                interpolation="nearest",
            )
        three[0].set_title(str(row["id"]), fontsize=8, pad=2, loc="left")
    return _as_url(figure)


def _as_url(figure: Any) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
