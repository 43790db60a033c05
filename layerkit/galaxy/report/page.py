"""A self-contained HTML page about a run: numbers beside the paper's, figures and settings.

The pictures are inside the page, the style too, and it loads nothing and runs nothing, so it can be
mailed, archived or opened years later.  The page's frame is page.html and its style page.css, both
beside this file.
"""

import base64
import os
from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from layerkit.errors import DataError
from layerkit.files import write_atomically
from layerkit.galaxy.report.formats import (
    coverage,
    duration,
    kept,
    number,
    percent,
    setting,
    share,
    wins,
)

# Regier, McAuliffe and Prabhat (2015), under the names `metrics.json` uses.
PAPER: Mapping[str, Any] = {
    "images_read": 61_578,
    "images_kept": 43_444,
    "train": 43_444,
    "held_out": 1_000,
    "pixels": "69 x 69",
    "latent": 8,
    "mse_wins": 971,
    "likelihood_wins": 972,
    "iterations_per_second": "about 200",
    "backend": "Tesla K20X",
}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def one_decimal(values: Mapping[str, Any], key: str) -> str:
    """Write a number with one decimal."""
    return number(values, key, ",.1f")


def whole(values: Mapping[str, Any], key: str) -> str:
    """Write a number rounded to a whole one."""
    return number(values, key, ",.0f")


def two_decimals(values: Mapping[str, Any], key: str) -> str:
    """Write a number with two decimals."""
    return number(values, key, ".2f")


Show = Callable[[Mapping[str, Any], str], str]
FACTS = (("Data", "data"), ("Net", "net"), ("Seed", "seed"), ("Backend", "backend"))
TILES: tuple[tuple[str, str, Show], ...] = (
    ("fitted better than by the Gaussian, squared error", "mse_wins", share),
    ("explained better, log likelihood", "likelihood_wins", share),
    ("held-out bound, nats per image", "held_out_elbo", whole),
    ("of training", "seconds", duration),
)
COMPARISON: tuple[tuple[str, str, Show], ...] = (
    ("Images read", "images_read", number),
    ("Images kept", "images_kept", kept),
    ("Images trained on", "train", number),
    ("Images held out", "held_out", number),
    ("Pixels", "pixels", setting),
    ("Latent dimensions", "latent", number),
    ("Iterations", "iterations", number),
    ("Time to train", "seconds", duration),
    ("Iterations a second", "iterations_per_second", one_decimal),
    ("Images a second", "images_per_second", whole),
    ("Computed on", "backend", setting),
    ("Bound on training images, nats each", "train_elbo", one_decimal),
    ("Bound on held-out images, nats each", "held_out_elbo", one_decimal),
    ("as g encodes them", "encoded_held_out_elbo", one_decimal),
    ("of which KL, nats", "held_out_kl", one_decimal),
    ("Training bound above held-out one, %", "bound_gap_percent", two_decimals),
    ("Importance weighted bound, held out", "held_out_iwae", one_decimal),
    ("Better than the Gaussian, squared error", "mse_wins", wins),
    ("Better than the Gaussian, log likelihood", "likelihood_wins", wins),
    ("Better than the Sersic profile, squared error", "sersic_mse_wins", wins),
    ("Better than the Sersic profile, log likelihood", "sersic_likelihood_wins", wins),
    ("Better than PCA of as many dimensions, squared error", "pca_mse_wins", wins),
    ("the closest picture there is", "closest_pca_mse_wins", wins),
    ("Pixels within 1, 2, 3 predicted sd", "coverage_{}sd", coverage),
)
SHOWN = {  # above the settings
    "command",
    "excluded",
    *(f"coverage_{k}sd" for k in (1, 2, 3)),
    *(key for _, key in FACTS),
    *(key for _, key, _ in (*TILES, *COMPARISON)),
}


def write_report(
    path: str | os.PathLike,
    metrics: Mapping[str, Any],
    figures: Iterable[tuple[str, str, str | os.PathLike]] = (),
    paper: Mapping[str, Any] = PAPER,
) -> Path:
    """Write the page; a file already there is replaced only once the new one is complete.

    Args:
        path: of the HTML file.
        metrics: the contents of ``metrics.json``.  Facts, tiles and the table "paper | this run"
            take the keys in FACTS, TILES and COMPARISON; ``excluded`` maps reasons to counts, and
            ``command`` is the command of the run.  All others go under settings.  A dash stands for
            each that is missing or None.
        figures: (title, caption, path of a PNG) in the order of the page.
        paper: the numbers of the paper, by the names of the metrics.

    Raises:
        DataError: a figure is missing or not a PNG.
    """
    content = _page(metrics, list(figures), paper).encode("utf-8", "backslashreplace")
    write_atomically(path, lambda part: part.write_bytes(content))
    return Path(path)


def _page(
    metrics: Mapping[str, Any],
    figures: list[tuple[str, str, str | os.PathLike]],
    paper: Mapping[str, Any],
) -> str:
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
        comparison="\n".join(
            _row(label, show(paper, key), show(metrics, key)) for label, key, show in COMPARISON
        ),
        excluded=_excluded(metrics),
        figures="\n".join(_figure(*figure) for figure in figures),
        settings=_settings(metrics),
    )


def _file(name: str) -> str:
    return files("layerkit.galaxy.report").joinpath(name).read_text(encoding="utf-8")


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


def _figure(title: str, caption: str, path: str | os.PathLike) -> str:
    try:
        png = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the figure cannot be read ({error.strerror})") from error
    if not png.startswith(PNG_SIGNATURE):
        raise DataError(f"{path}: the report takes figures in PNG, and this file is not one")
    picture = base64.b64encode(png).decode("ascii")
    return (
        f"<section>\n<h2>{escape(title)}</h2>\n<figure>"
        f'<div class="plate"><img alt="{escape(title)}" src="data:image/png;base64,{picture}">'
        f"</div>\n<figcaption>{escape(caption)}</figcaption></figure>\n</section>"
    )


def _settings(metrics: Mapping[str, Any]) -> str:
    rows = [_row(key, setting(metrics, key)) for key in metrics if key not in SHOWN]
    return _table("Settings", rows, kind=' class="settings"') if rows else ""
