"""A self-contained HTML page about a run: numbers beside the paper's, figures and settings.

The pictures are inside the page, the style too, and it loads nothing and runs nothing, so it can be
mailed, archived or opened years later.
"""

import base64
import math
import os
from collections.abc import Callable, Iterable, Mapping
from html import escape
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from layerkit.errors import DataError
from layerkit.files import write_atomically

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

DASH = "\N{EM DASH}"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_report(
    path: str | os.PathLike,
    metrics: Mapping[str, Any],
    figures: Iterable[tuple[str, str, str | os.PathLike]] = (),
    paper: Mapping[str, Any] = PAPER,
) -> Path:
    """Write the page; a file already there is replaced only once the new one is complete.

    Args:
        path: of the HTML file.
        metrics: what ``metrics.json`` holds.  The table "paper | this run" takes ``images_read``,
            ``images_kept``, ``train``, ``held_out``, ``pixels``, ``latent``, ``iterations``,
            ``seconds``, ``iterations_per_second``, ``images_per_second``, ``backend``,
            ``train_elbo``, ``held_out_elbo``, ``held_out_kl`` (nats per image), ``mse_wins``,
            ``likelihood_wins``, ``sersic_mse_wins``, ``sersic_likelihood_wins``,
            ``pca_mse_wins``, ``bound_gap_percent``, ``held_out_iwae`` and ``coverage_1sd`` to
            ``coverage_3sd``; the header ``data``, ``net``, ``seed`` and
            ``command``; ``excluded`` maps reasons to counts.  Whatever else there is goes under
            settings.  What is missing or None is shown as a dash.
        figures: (title, caption, path of a PNG) in the order of the page.
        paper: the numbers of the paper, under the same names.

    Raises:
        DataError: a figure is missing or not a PNG.
    """
    page = _page(metrics, list(figures), paper)
    content = page.encode("utf-8", "backslashreplace")  # names of files
    write_atomically(path, lambda part: part.write_bytes(content))
    return Path(path)


def _page(
    metrics: Mapping[str, Any],
    figures: list[tuple[str, str, str | os.PathLike]],
    paper: Mapping[str, Any],
) -> str:
    sections = [
        _header(metrics),
        _tiles(metrics),
        _comparison(metrics, paper),
        _excluded(metrics),
        _figures(figures),
        _settings(metrics),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Galaxy model: report</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(metrics: Mapping[str, Any]) -> str:
    facts = "".join(
        f"<div><dt>{label}</dt><dd>{_text(metrics, key)}</dd></div>"
        for label, key in (
            ("Data", "data"),
            ("Net", "net"),
            ("Seed", "seed"),
            ("Backend", "backend"),
        )
    )
    command = metrics.get("command")
    ran = f"<pre><code>{escape(str(command))}</code></pre>" if command else ""
    return (
        "<header><h1>A generative model of galaxies</h1>"
        "<p>A run of layerkit after Regier, McAuliffe and Prabhat, <cite>A deep generative model"
        " for astronomical images of galaxies</cite>, 2015.</p>"
        f"<dl>{facts}</dl>{ran}</header>"
    )


def _tiles(metrics: Mapping[str, Any]) -> str:
    """The four numbers a reader wants first."""
    tiles = (
        ("fitted better than by the Gaussian, squared error", _share(metrics, "mse_wins")),
        ("explained better, log likelihood", _share(metrics, "likelihood_wins")),
        ("held-out bound, nats per image", _number(metrics, "held_out_elbo", ",.0f")),
        ("of training", _duration(metrics)),
    )
    return (
        '<section class="tiles">'
        + "".join(f"<p><strong>{value}</strong><span>{label}</span></p>" for label, value in tiles)
        + "</section>"
    )


def _comparison(metrics: Mapping[str, Any], paper: Mapping[str, Any]) -> str:
    rows: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("Images read", lambda m: _number(m, "images_read")),
        ("Images kept", _kept),
        ("Images trained on", lambda m: _number(m, "train")),
        ("Images held out", lambda m: _number(m, "held_out")),
        ("Pixels", lambda m: _text(m, "pixels")),
        ("Latent dimensions", lambda m: _number(m, "latent")),
        ("Iterations", lambda m: _number(m, "iterations")),
        ("Time to train", _duration),
        ("Iterations a second", lambda m: _number(m, "iterations_per_second", ",.1f")),
        ("Images a second", lambda m: _number(m, "images_per_second", ",.0f")),
        ("Computed on", lambda m: _text(m, "backend")),
        ("Bound on training images, nats each", lambda m: _number(m, "train_elbo", ",.1f")),
        ("Bound on held-out images, nats each", lambda m: _number(m, "held_out_elbo", ",.1f")),
        ("as g encodes them", lambda m: _number(m, "encoded_held_out_elbo", ",.1f")),
        ("of which KL, nats", lambda m: _number(m, "held_out_kl", ",.1f")),
        ("Training bound above held-out one, %", lambda m: _number(m, "bound_gap_percent", ".2f")),
        ("Importance weighted bound, held out", lambda m: _number(m, "held_out_iwae", ",.1f")),
        ("Better than the Gaussian, squared error", lambda m: _wins(m, "mse_wins")),
        ("Better than the Gaussian, log likelihood", lambda m: _wins(m, "likelihood_wins")),
        ("Better than the Sersic profile, squared error", lambda m: _wins(m, "sersic_mse_wins")),
        (
            "Better than the Sersic profile, log likelihood",
            lambda m: _wins(m, "sersic_likelihood_wins"),
        ),
        (
            "Better than PCA of as many dimensions, squared error",
            lambda m: _wins(m, "pca_mse_wins"),
        ),
        ("the closest picture there is", lambda m: _wins(m, "closest_pca_mse_wins")),
        ("Pixels within 1, 2, 3 predicted sd", _coverage),
    ]
    lines = "".join(
        f'<tr><th scope="row">{label}</th><td>{show(paper)}</td><td>{show(metrics)}</td></tr>'
        for label, show in rows
    )
    return (
        "<section><h2>Beside the paper</h2>"
        '<div class="scroll"><table><thead><tr><th></th><th scope="col">paper</th>'
        f'<th scope="col">this run</th></tr></thead><tbody>{lines}</tbody></table></div>'
        f'<p class="note">{DASH} where there is no number. The Gaussian is the scaled bivariate'
        " Gaussian that fits the image best (six parameters, no sky term); for the likelihood it"
        " gets the one pixel variance that suits that image best. So does the Sersic profile, which"
        " has a free index and a sky term (eight parameters). The model's z is what g says of the"
        " image, refined by gradient steps for that image; its closest picture is of the z with the"
        " least squared error. A normal distribution has 68.3%, 95.4% and 99.7% of the"
        " pixels within 1, 2 and 3 standard deviations.</p></section>"
    )


def _excluded(metrics: Mapping[str, Any]) -> str:
    excluded = metrics.get("excluded")
    if not excluded:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(str(reason))}</th><td>{count:,}</td>'
        f"<td>{_percent(count, metrics.get('images_read'))}</td></tr>"
        for reason, count in sorted(excluded.items(), key=lambda item: -item[1])
    )
    return (
        '<section><h2>Images left out</h2><div class="scroll"><table><thead><tr><th></th>'
        '<th scope="col">images</th><th scope="col">of those read</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div></section>"
    )


def _figures(figures: list[tuple[str, str, str | os.PathLike]]) -> str:
    shown = []
    for title, caption, path in figures:
        try:
            png = Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"{path}: the figure cannot be read ({error.strerror})") from error
        if not png.startswith(PNG_SIGNATURE):
            raise DataError(f"{path}: the report takes figures in PNG, and this file is not one")
        picture = base64.b64encode(png).decode("ascii")
        shown.append(
            f"<section><h2>{escape(title)}</h2><figure>"
            f'<div class="plate"><img alt="{escape(title)}" src="data:image/png;base64,{picture}">'
            f"</div><figcaption>{escape(caption)}</figcaption></figure></section>"
        )
    return "\n".join(shown)


# What the parts above the settings have shown already.
SHOWN = {
    "images_read", "images_kept", "train", "held_out", "pixels", "latent", "iterations", "seconds",
    "iterations_per_second", "images_per_second", "backend", "train_elbo", "held_out_elbo",
    "held_out_kl", "mse_wins", "likelihood_wins", "pca_mse_wins", "data", "net", "seed", "command",
    "excluded", "bound_gap_percent", "held_out_iwae", "sersic_mse_wins", "sersic_likelihood_wins",
    "coverage_1sd", "coverage_2sd", "coverage_3sd", "closest_pca_mse_wins", "encoded_held_out_elbo",
}  # fmt: skip


def _settings(metrics: Mapping[str, Any]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{_text(metrics, key)}</td></tr>'
        for key in metrics
        if key not in SHOWN
    )
    if not lines:
        return ""
    return (
        '<section><h2>Settings</h2><div class="scroll"><table class="settings"><tbody>'
        f"{lines}</tbody></table></div></section>"
    )


def _text(values: Mapping[str, Any], key: str) -> str:
    """A setting: as it was given, numbers without separators."""
    value = values.get(key)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return format(float(value), ".6g")
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(k))}: {_text(value, k)}" for k in value) or DASH
    if isinstance(value, list):
        return ", ".join(_text({key: v}, key) for v in value)
    return DASH if value is None else escape(str(value))


def _number(values: Mapping[str, Any], key: str, form: str = ",d") -> str:
    """A measured number in the given format; the paper's may be words."""
    value = values.get(key)
    if isinstance(value, Real):
        if not math.isfinite(value):
            return "not finite"
        return format(int(float(value)) if form == ",d" else float(value), form)
    return DASH if value is None else escape(str(value))


def _percent(part: Any, whole: Any) -> str:
    return f"{part / whole:.1%}" if part is not None and whole else DASH


def _share(values: Mapping[str, Any], key: str) -> str:
    return _percent(values.get(key), values.get("held_out"))


def _kept(values: Mapping[str, Any]) -> str:
    share = _percent(values.get("images_kept"), values.get("images_read"))
    return _number(values, "images_kept") + ("" if share == DASH else f" ({share})")


def _wins(values: Mapping[str, Any], key: str) -> str:
    if values.get(key) is None:
        return DASH
    # A narrow screen may break the line before the share, not inside the count.
    return (
        f"{_number(values, key)}&nbsp;of&nbsp;{_number(values, 'held_out')} ({_share(values, key)})"
    )


def _coverage(values: Mapping[str, Any]) -> str:
    shares = [values.get(f"coverage_{k}sd") for k in (1, 2, 3)]
    return DASH if None in shares else ", ".join(f"{share:.1%}" for share in shares)


def _duration(values: Mapping[str, Any]) -> str:
    seconds = values.get("seconds")
    if seconds is None:
        return DASH
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --ink: #1d2126; --faint: #646b74;
  --line: #dfe1e4; --panel: #f0f1f2; --mark: #1f6f8b; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e4e6e9; --faint: #9aa2ac;
  --line: #31363d; --panel: #1d2127; --mark: #6fb9d2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 0 0 .8rem; }
section { margin-top: 2.75rem; }
header p, .note, figcaption { color: var(--faint); }
header p { margin: 0 0 1.2rem; }
dl { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin: 0 0 1rem; }
dt { font-size: .8rem; color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: 0; padding: .7rem .9rem; background: var(--panel);
  white-space: pre-wrap; overflow-wrap: anywhere;
  border-radius: 6px; font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, monospace; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem;
  margin-top: 1.6rem; }
.tiles p { margin: 0; padding: .9rem 1rem; background: var(--panel); border-radius: 6px; }
.tiles strong { display: block; font-size: 1.6rem; line-height: 1.2; color: var(--mark);
  font-variant-numeric: tabular-nums; }
.tiles span { font-size: .85rem; color: var(--faint); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .9rem .42rem 0; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child { text-align: left; font-weight: 400; white-space: normal; min-width: 9rem; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--faint); font-size: .85rem; font-weight: 400; }
td:last-child { font-weight: 600; }
.settings td { font-weight: 400; white-space: normal; overflow-wrap: anywhere; }
.note { font-size: .85rem; margin: .7rem 0 0; }
figure { margin: 0; }
.plate { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .6rem;
  text-align: center; }
img { display: block; margin: 0 auto; max-width: 100%; height: auto; }
figcaption { font-size: .92rem; margin-top: .7rem; max-width: 46rem; }
@media (max-width: 32rem) { main { padding: 1.4rem 1rem 3rem; } h1 { font-size: 1.55rem; }
  .tiles { grid-template-columns: 1fr 1fr; } .tiles strong { font-size: 1.3rem; }
  table { font-size: .88rem; } th, td { white-space: normal; padding-right: .7rem; }
  th:first-child { min-width: 7rem; } .plate { padding: .25rem; } }
@media print { section { break-inside: avoid; } }
"""
