"""The metrics of runs: written, read back, summed up in a few lines, and as a table."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerkit.errors import DataError, brief
from layerkit.galaxy.report.formats import DASH
from layerkit.settings import fitting
from layerkit.system.files import path_of, write_atomically


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write indented JSON as a whole file or none; null stands for NaN and infinities."""
    path = path_of(path, DataError)
    try:
        text = json.dumps(_known(values), indent=2, allow_nan=False, default=str) + "\n"
    except RecursionError as error:
        raise DataError(f"{path}: values that are nested too deeply, or hold themselves") from error
    write_atomically(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path) -> Any:
    """Read JSON that a run has written.

    Raises:
        DataError: the file is missing, unreadable, or no JSON.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give the folder of a finished run"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the metrics of a run cannot be read ({error})") from error


def _known(value: Any) -> Any:
    """Replace every number that is not finite, however deep it is nested, by None."""
    if isinstance(value, dict):
        return {k: _known(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_known(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def checked_metrics(metrics: Any, function: str) -> Mapping[str, Any]:
    """Return the metrics of a run, if they are some.

    Raises:
        DataError: they are something else; the message names the function that was called.
    """
    if not isinstance(metrics, Mapping) or "held_out" not in metrics:
        raise DataError(
            f"{function}: expected the metrics of a run, as read_metrics returns them, got "
            f"{brief(metrics)}"
        )
    return metrics


@contextmanager
def of_a_whole_run(function: str) -> Iterator[None]:
    """Turn what a missing value, or one of another type, leads to into an error in words."""
    try:
        yield
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{function}: not the metrics of a whole run ({error!r})") from error


def summary(metrics: Mapping[str, Any]) -> str:
    """Write the main results in a few lines, with columns for encoder alone and refined z.

    Raises:
        DataError: not the metrics of a whole run.
    """
    checked_metrics(metrics, "summary")
    with of_a_whole_run("summary"):
        return _summary(metrics)


def _summary(metrics: Mapping[str, Any]) -> str:

    def line(label: str, encoded: str, refined: str, note: str = "") -> str:
        text = f"{label:50}{encoded:>14}{refined:>14}   {note}".rstrip()
        return text.replace(DASH, "-")  # terminals may have no other

    def wins(label: str, key: str, note: str = "") -> str:
        encoded, refined = (_wins(name)(metrics) for name in (f"encoded_{key}", key))
        return line(label, encoded, refined, note)

    samples, components = metrics["iwae_samples"], metrics["pca_components"]
    return "\n".join(
        [
            line(f"{metrics['held_out']:,} held-out galaxies", "encoder alone", "refined"),
            line(
                "bound, nats per image",
                f"{metrics['encoded_held_out_elbo']:,.1f}",
                f"{metrics['held_out_elbo']:,.1f}",
                f"KL {metrics['held_out_kl']:.1f}",
            ),
            line(
                "bound on training galaxies",
                DASH,
                f"{metrics['train_elbo']:,.1f}",
                f"{metrics['bound_gap_percent']:.1f}% apart",
            ),
            line(
                "importance-weighted bound",
                DASH,
                f"{metrics['held_out_iwae']:,.1f}",
                f"{samples:,} samples",
            ),
            wins("better than the Gaussian, squared error", "mse_wins", "paper: 971 of 1000"),
            wins("better than the Gaussian, likelihood", "likelihood_wins", "paper: 972 of 1000"),
            wins("better than the Sersic profile, squared error", "sersic_mse_wins"),
            wins("better than the Sersic profile, likelihood", "sersic_likelihood_wins"),
            wins(
                f"better than PCA with {components} components, squared error",
                "pca_mse_wins",
                f"closest picture: {_wins('closest_pca_mse_wins')(metrics)}",
            ),
            *(
                line(f"pixels within {k} predicted sd", DASH, f"{share:.1%}", f"normal: {normal}")
                for k, normal in enumerate(("68.3%", "95.4%", "99.7%"), 1)
                for share in [metrics[f"coverage_{k}sd"]]
            ),
            f"{metrics['iterations_per_second']:,.0f} iterations and "
            f"{metrics['images_per_second']:,.0f} images per second",
        ]
    )


@fitting(DataError)
def read_metrics(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the metrics.json of a run, given the file or the folder with it.

    Raises:
        DataError: the file is missing, unreadable, or not from a run.
    """
    path = path_of(path, DataError)
    path = path / "metrics.json" if path.is_dir() else path
    found = read_json(path)
    if not isinstance(found, dict) or "held_out" not in found:
        raise DataError(f"{path}: this is JSON, but not the metrics.json of a run: no 'held_out'")
    return found


@fitting(DataError)
def results_table(runs: Iterable[Mapping[str, Any]]) -> str:
    """Write a Markdown table with a row for each run, from nothing but their metrics.

    A dash stands for a number that a run lacks.  A star after the number of held-out galaxies marks
    runs on other galaxies than the first run's, whose numbers do not compare.

    Args:
        runs: metrics as returned by `read_metrics`.

    Raises:
        DataError: metrics of another type than a run writes.
    """
    if not isinstance(runs, Iterable):
        raise DataError(f"results_table: expected a list of metrics, got {brief(runs)}")
    runs = [checked_metrics(run, "results_table") for run in runs]
    rows = [list(COLUMNS), ["---:" if name in NUMBERS else "---" for name in COLUMNS]]
    for run in runs:
        other = run.get("galaxies") != runs[0].get("galaxies")
        cells = []
        for name, show in COLUMNS.items():
            try:
                cells.append(show(run))
            except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise DataError(
                    f"metrics of {run.get('data', 'a run')}: the value for {name!r} is of "
                    f"another type than a run writes ({error!r}); give one as a run wrote it"
                ) from error
        cells[list(COLUMNS).index("held out")] += " *" if other else ""
        rows.append([cell.replace("|", "\\|") for cell in cells])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _net(run: Mapping[str, Any]) -> str:
    settings = run.get("net_settings") or {}
    return " ".join([str(run.get("net", DASH)), *(f"{k}={v}" for k, v in settings.items())])


def _value(key: str, form: str, factor: float = 1.0) -> Callable[[Mapping[str, Any]], str]:
    def show(run: Mapping[str, Any]) -> str:
        value = run.get(key)
        return DASH if value is None else format(factor * value if factor != 1 else value, form)

    return show


def _wins(key: str) -> Callable[[Mapping[str, Any]], str]:
    """Return a function that writes a count of held-out galaxies, and their percentage."""

    def show(run: Mapping[str, Any]) -> str:
        wins = run.get(key)
        return DASH if wins is None else f"{wins:,} ({wins / run['held_out']:.1%})"

    return show


def _coverage(deviations: int) -> Callable[[Mapping[str, Any]], str]:
    """Return a function that writes the coverage overall, and that of the worst fifth of pixels."""

    def show(run: Mapping[str, Any]) -> str:
        key = f"coverage_{deviations}sd"
        if run.get(key) is None:
            return DASH
        return f"{run[key]:.1%} ({run[f'{key}_worst_quintile']:.1%})"

    return show


WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {"net": _net}
NUMBERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "seed": _value("seed", "d"),
    "trained on": _value("train", ",d"),
    "held out": _value("held_out", ",d"),
    "ELBO of g": _value("encoded_held_out_elbo", ",.1f"),
    "ELBO": _value("held_out_elbo", ",.1f"),
    "IWAE": _value("held_out_iwae", ",.1f"),
    "KL": _value("held_out_kl", ".1f"),
    "Gaussian, squared error": _wins("mse_wins"),
    "Gaussian, likelihood": _wins("likelihood_wins"),
    "Sersic, squared error": _wins("sersic_mse_wins"),
    "Sersic, likelihood": _wins("sersic_likelihood_wins"),
    "PCA, squared error": _wins("pca_mse_wins"),
    "PCA, closest": _wins("closest_pca_mse_wins"),
    "within 1 sd (worst fifth)": _coverage(1),
    "within 2 sd (worst fifth)": _coverage(2),
    "gap, %": _value("bound_gap_percent", ".2f"),
    "minutes": _value("seconds", ".1f", 1 / 60),
}
COLUMNS = (
    WORDS | NUMBERS | {"command": lambda run: f"`{run['command']}`" if run.get("command") else DASH}
)
