"""A self-contained HTML page about a run: numbers beside the paper's, figures and settings.

The pictures are inside the page, the style too, and it loads nothing and runs nothing, so it can be
mailed, archived or opened years later.  The page's frame is page.html and its style page.css, both
beside this file.
"""

import base64
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from layerkit.errors import DataError, brief
from layerkit.galaxy.report.formats import (
    decimals,
    duration,
    fraction,
    kept,
    number,
    percent,
    percentage,
    setting,
    share,
    significant,
    wins,
)
from layerkit.galaxy.report.metrics import of_a_whole_run
from layerkit.galaxy.report.page.plates import Plate
from layerkit.system.files import path_of, write_atomically

# Regier, McAuliffe and Prabhat (2015), under the names `metrics.json` uses.
PAPER: Mapping[str, Any] = {
    "images_read": 61_578,
    "images_kept": 43_444,
    "train": 43_444,
    "held_out": 1_000,
    "pixels": "69 x 69",
    "latent": 8,
    "encoded_mse_wins": 971,
    "encoded_likelihood_wins": 972,
    "iterations_per_second": "about 200",
    "backend": "Tesla K20X",
}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Show = Callable[[Mapping[str, Any], str], str]
FACTS = (("Data", "data"), ("Net", "net"), ("Seed", "seed"), ("Backend", "backend"))
TILES: tuple[tuple[str, str, Show], ...] = (
    ("closer than the Gaussian, encoder alone", "encoded_mse_wins", share),
    ("likelier than the Gaussian, encoder alone", "encoded_likelihood_wins", share),
    ("held-out bound in nats per image, refined", "held_out_elbo", decimals(0)),
    ("of training", "seconds", duration),
)
RUN: tuple[tuple[str, str, Show], ...] = (
    ("Images read", "images_read", number),
    ("Images kept", "images_kept", kept),
    ("Images trained on", "train", number),
    ("Images held out", "held_out", number),
    ("Pixels", "pixels", setting),
    ("Latent dimensions", "latent", number),
    ("Iterations", "iterations", number),
    ("Time to train", "seconds", duration),
    ("Iterations per second", "iterations_per_second", decimals(1)),
    ("Images per second", "images_per_second", decimals(0)),
    ("Computed on", "backend", setting),
)
# Each measure has a metric for z of the encoder alone, refined and closest; the paper's is the
# encoder's.  An empty name stands for what is not measured.
MEASURES: tuple[tuple[str, tuple[str, str, str], Show], ...] = (
    ("Bound, nats", ("encoded_held_out_elbo", "held_out_elbo", ""), decimals(1)),
    ("KL divergence in it, nats", ("", "held_out_kl", ""), decimals(1)),
    ("Importance-weighted bound, nats", ("", "held_out_iwae", ""), decimals(1)),
    ("Bound on training images, nats", ("", "train_elbo", ""), decimals(1)),
    ("Training bound above held-out bound", ("", "bound_gap_percent", ""), percentage),
    (
        "Mean squared error of a pixel",
        ("encoded_held_out_mse", "held_out_mse", "closest_held_out_mse"),
        significant,
    ),
    ("Closer than the Gaussian", ("encoded_mse_wins", "mse_wins", "closest_mse_wins"), wins),
    ("Likelier than the Gaussian", ("encoded_likelihood_wins", "likelihood_wins", ""), wins),
    (
        "Closer than the Sersic profile",
        ("encoded_sersic_mse_wins", "sersic_mse_wins", "closest_sersic_mse_wins"),
        wins,
    ),
    ("Likelier than the Sersic profile", ("", "sersic_likelihood_wins", ""), wins),
    ("Closer than PCA", ("encoded_pca_mse_wins", "pca_mse_wins", "closest_pca_mse_wins"), wins),
    ("Likelier than PCA", ("", "pca_likelihood_wins", ""), wins),
    ("Pixels within 1 sd (normal: 68.3%)", ("", "coverage_1sd", ""), fraction),
    ("Pixels within 2 sd (normal: 95.4%)", ("", "coverage_2sd", ""), fraction),
    ("Pixels within 3 sd (normal: 99.7%)", ("", "coverage_3sd", ""), fraction),
)
SHOWN = {  # above the other numbers
    "command",
    "excluded",
    *(key for _, key in FACTS),
    *(key for _, key, _ in (*TILES, *RUN)),
    *(key for _, keys, _ in MEASURES for key in keys),
}


def write_report(
    path: str | os.PathLike,
    metrics: Mapping[str, Any],
    figures: Iterable[Plate | tuple[str, str, str | os.PathLike]] = (),
    paper: Mapping[str, Any] = PAPER,
) -> Path:
    """Write the page; a file already there is replaced only once the new one is complete.

    Args:
        path: of the HTML file.
        metrics: the contents of ``metrics.json``.  Facts, tiles and tables take the keys in FACTS,
            TILES, RUN and MEASURES; ``excluded`` maps reasons to counts, and ``command`` is the
            command of the run.  All others are listed at the end.  A dash stands for each that is
            missing or None.
        figures: in the order of the page, each a `Plate` or (title, caption, path of a PNG).
        paper: the numbers of the paper, by the names of the metrics.

    Raises:
        DataError: a figure is missing or not a PNG, or a metric is of another type than a run
            writes.
    """
    path = path_of(path, DataError)
    if not isinstance(metrics, Mapping):
        raise DataError(f"write_report: expected the metrics of a run, got {brief(metrics)}")
    plates = [Plate(*figure) for figure in figures]
    with of_a_whole_run("write_report"):
        content = _page(metrics, plates, paper).encode("utf-8", "backslashreplace")
    write_atomically(path, lambda part: part.write_bytes(content))
    return Path(path)


def _page(metrics: Mapping[str, Any], plates: list[Plate], paper: Mapping[str, Any]) -> str:
    command = metrics.get("command")
    return Template(_file("page.html")).substitute(
        style=_file("page.css"),
        facts="".join(
            f"<div><dt>{label}</dt><dd>{escape(setting(metrics, key))}</dd></div>"
            for label, key in FACTS
        ),
        command=f"<pre><code>{escape(str(command))}</code></pre>" if command else "",
        tiles="".join(
            f"<p><strong>{escape(show(metrics, key))}</strong><span>{label}</span></p>"
            for label, key, show in TILES
        ),
        run="\n".join(
            _row(label, show(paper, key), show(metrics, key)) for label, key, show in RUN
        ),
        measures="\n".join(
            _row(label, show(paper, keys[0]), *(show(metrics, key) for key in keys))
            for label, keys, show in MEASURES
        ),
        excluded=_excluded(metrics),
        figures="\n".join(_figure(f"figure{k}", plate) for k, plate in enumerate(plates, 1)),
        others=_others(metrics),
    )


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _row(heading: str, *cells: str) -> str:
    texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(heading)}</th>{texts}</tr>'


def _table(title: str, rows: Iterable[str], head: str = "", kind: str = "") -> str:
    return (
        f'<section>\n<h2>{title}</h2>\n<div class="scroll"><table{kind}>\n{head}<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody>\n</table></div>\n</section>"
    )


def _excluded(metrics: Mapping[str, Any]) -> str:
    excluded = metrics.get("excluded")
    if not excluded:
        return ""
    head = (
        '<thead><tr><th></th><th scope="col">images</th><th scope="col">of those read</th></tr>'
        "</thead>\n"
    )
    rows = [
        _row(str(reason), f"{count:,}", percent(count, metrics.get("images_read")))
        for reason, count in sorted(excluded.items(), key=lambda item: -item[1])
    ]
    return _table("Images left out", rows, head)


def _figure(name: str, plate: Plate) -> str:
    try:
        png = Path(plate.path).read_bytes()
    except OSError as error:
        reason = f"the figure cannot be read ({error.strerror})"
        raise DataError(f"{plate.path}: {reason}") from error
    if not png.startswith(PNG_SIGNATURE):
        raise DataError(f"{plate.path}: the report takes figures in PNG, and this file is not one")
    width, height = struct.unpack(">2I", png[16:24])
    dark = ""
    if plate.dark:
        dark = f'<source media="(prefers-color-scheme: dark)" srcset="{_data(plate.dark)}">'
    # The words of a wide diagram would be too small on a phone.
    wide = " wide" if width > 1.4 * height and not plate.marks else ""
    # A galaxy may be in several pictures of a figure; the list links to the first.
    numbers = {
        galaxy: k for k, galaxy in enumerate(dict.fromkeys(m.galaxy for m in plate.marks), 1)
    }
    return (
        f"<section>\n<h2>{escape(plate.title)}</h2>\n"
        f'<figure><div class="plate{wide}"><div class="picture">\n'
        f'<picture>{dark}<img alt="{escape(plate.title)}" width="{width}" height="{height}"'
        f' loading="lazy" decoding="async" src="{_data(png)}"></picture>\n'
        f"{_links(name, plate, numbers)}</div></div>\n"
        f"<figcaption>{escape(plate.caption)}</figcaption></figure>\n"
        f"{_ids(name, numbers)}</section>"
    )


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _links(name: str, plate: Plate, numbers: Mapping[str, int]) -> str:
    """Lay a link to its id over every galaxy."""
    lines, seen = [], set()
    for galaxy, *box in plate.marks:
        target = "" if galaxy in seen else f' id="{name}-galaxy{numbers[galaxy]}"'
        seen.add(galaxy)
        sides = zip(("left", "top", "width", "height"), box, strict=True)
        style = ";".join(f"{side}:{100 * value:.3f}%" for side, value in sides)
        lines.append(
            f'<a{target} href="#{name}-id{numbers[galaxy]}" title="{escape(galaxy)}" tabindex="-1"'
            f' style="{style}"></a>\n'
        )
    return "".join(lines)


def _ids(name: str, numbers: Mapping[str, int]) -> str:
    if not numbers:
        return ""
    lines = "\n".join(
        f'<li id="{name}-id{k}"><a href="#{name}-galaxy{k}">{escape(galaxy)}</a></li>'
        for galaxy, k in numbers.items()
    )
    summary = f"The {len(numbers):,} galaxies shown, row by row"
    return f'<details class="ids"><summary>{summary}</summary><ol>\n{lines}\n</ol></details>\n'


def _others(metrics: Mapping[str, Any]) -> str:
    rows = []
    for key, value in metrics.items():
        nested = isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values())
        if nested:
            rows += [_row(f"{key}, {name}", setting(value, name)) for name in value]
        elif key not in SHOWN:
            rows.append(_row(key, setting(metrics, key)))
    title = "Settings and other numbers"
    return _table(title, rows, kind=' class="settings"') if rows else ""
