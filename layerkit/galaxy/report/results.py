"""The folder that a run writes its results to, and their summary in a few lines."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from layerkit.errors import DataError, LayerkitError
from layerkit.galaxy.layout import MODEL, RESULTS
from layerkit.settings import fitting
from layerkit.snapshot import write_atomically

WAITING = ".before"  # a folder of earlier results until it holds them all


def results_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder, made if need be and known to be writable before any work is done.

    Raises:
        DataError: it cannot be made or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, FileExistsError):
            reason = "there is a file or a broken link of that name, and results need a folder"
        raise DataError(f"cannot write to {folder}: {reason}; choose another --out") from error
    return folder


def set_aside(
    folder: Path, *also: str, model: str = "move", into: Path | None = None
) -> Path | None:
    """Move the results of an earlier run into a folder before-1, before-2, ... beside them.

    Killed on the way, it is finished by the next call, so that what belongs together stays so.

    Args:
        folder: the run's folder.
        also: further files and folders in it to move; results are those in `layout.RESULTS`.
        model: "move" it, or for a run that goes on from it "copy" it, or "leave" it with the best
            parameters so far.
        into: a folder that this function returned, to add to it.

    Returns:
        The folder, or None where there was nothing to move.

    Raises:
        DataError: they cannot be moved.
    """
    waiting = folder / WAITING
    names = (*RESULTS, *also) if model != "leave" else (*RESULTS[2:], *also)
    found = [name for name in names if os.path.lexists(folder / name)]
    if not found and not waiting.exists():
        return None
    try:
        if into is None:
            waiting.mkdir(exist_ok=True)
        target = into or waiting
        for name in found:  # the model first, which the others describe
            _move(folder / name, target / name, copy=model == "copy" and name == MODEL)
        if into is None:
            numbers = (k for k in itertools.count(1) if not (folder / f"before-{k}").exists())
            target = folder / f"before-{next(numbers)}"
            waiting.rename(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{folder}: its earlier results cannot be set aside ({reason}); choose another --out"
        ) from error
    print(f"earlier results of {folder} are kept in {target}")
    return target


def finish_setting_aside(folder: Path) -> None:
    """Go on with a `set_aside` that was killed, if one was."""
    if (folder / WAITING).exists():
        set_aside(folder, model="copy")  # a model that is still there was to stay


def _move(path: Path, target: Path, copy: bool) -> None:
    """Moves a file or folder, or gives the file a second name, or copies it."""
    if copy:
        if target.exists():  # by a call that was killed
            return
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)
        try:
            os.link(path, part)
        except OSError:  # a file system without
            shutil.copy2(path, part)
        os.replace(part, target)
        return
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    os.replace(path, target)


def save_somewhere(write: Callable[[Path], None], error: Exception, folder: Path) -> NoReturn:
    """Write what could not be written into `folder` into another place, and say where it is.

    Args:
        write: writes into the folder it is given.
        error: why it could not.
        folder: where it belongs.

    Raises:
        DataError: always; it names `error`, the place and what to do.
    """
    reason = " ".join(str(error).split())
    for place in (tempfile.gettempdir(), Path.home(), Path.cwd()):
        saved = None
        try:
            saved = Path(tempfile.mkdtemp(prefix="layerkit-", dir=place))
            write(saved)
        except (OSError, LayerkitError):
            if saved is not None:
                shutil.rmtree(saved, ignore_errors=True)
            continue
        raise DataError(
            f"{reason}; all that training has done is saved in {saved} instead: make room, move "
            f"the files from there into {folder}, and go on with --resume"
        ) from error
    raise DataError(f"{reason}; nor could it be saved anywhere else") from error


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write readable JSON in one move; JSON has no infinities, so they become null."""
    text = json.dumps(_known(values), indent=2, allow_nan=False, default=str) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def _known(value: Any) -> Any:
    """The value with null for every number in it that is not finite."""
    if isinstance(value, dict):
        return {k: _known(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_known(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary(metrics: dict[str, Any]) -> str:
    """The main results in a few lines."""
    count = metrics["held_out"]

    def share(key: str) -> str:
        return f"{metrics[key]:>5} of {count} ({metrics[key] / count:.1%})"

    return "\n".join(
        [
            f"bound on held-out galaxies         {metrics['held_out_elbo']:,.0f} nats per image "
            f"(training {metrics['train_elbo']:,.0f}, {metrics['bound_gap_percent']:.1f}% apart; "
            f"KL {metrics['held_out_kl']:.1f})",
            f"importance weighted bound          {metrics['held_out_iwae']:,.0f} nats per image "
            f"({metrics['iwae_samples']:,} samples)",
            f"better than the best Gaussian by squared error  {share('mse_wins')}   "
            "paper: 971 of 1000",
            f"better than the best Gaussian by likelihood     {share('likelihood_wins')}   "
            "paper: 972 of 1000",
            f"better than the best Sersic profile by squared error   {share('sersic_mse_wins')}",
            "better than the best Sersic profile by likelihood      "
            f"{share('sersic_likelihood_wins')}",
            f"better than PCA with {metrics['pca_components']} components, squared error  "
            f"{share('pca_mse_wins')}",
            f"  the closest picture that the model can make    {share('closest_pca_mse_wins')}",
            "pixels within 1, 2 and 3 predicted sd  "
            + ", ".join(f"{metrics[f'coverage_{k}sd']:.1%}" for k in (1, 2, 3))
            + "   nominal: 68.3%, 95.4%, 99.7%",
            f"{metrics['iterations_per_second']:,.0f} iterations and "
            f"{metrics['images_per_second']:,.0f} images per second",
        ]
    )


@fitting(DataError)
def read_metrics(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metrics.json of a run, from the file or from the folder it is in.

    Raises:
        DataError: there is none, or it is not one.
    """
    path = Path(path)
    path = path / "metrics.json" if path.is_dir() else path
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no metrics of a run can be read from it ({error})") from error
    if not isinstance(found, dict) or "held_out" not in found:
        raise DataError(f"{path}: JSON, but not the metrics.json of a run")
    return found


@fitting(DataError)
def results_table(runs: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table with a row for each run, made of nothing but their metrics.

    What a run did not measure is a dash.  Runs over other galaxies than the first run's are marked
    by a star after the number held out: their numbers do not compare.

    Args:
        runs: what `read_metrics` returned.

    Raises:
        DataError: metrics of another kind than a run writes.
    """
    runs = list(runs)
    rows = [list(COLUMNS), ["---:" if name in NUMBERS else "---" for name in COLUMNS]]
    for run in runs:
        other = run.get("galaxies") != runs[0].get("galaxies")
        cells = []
        for name, show in COLUMNS.items():
            try:
                cells.append(show(run))
            except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise DataError(
                    f"metrics of {run.get('data', 'a run')}: what belongs under {name!r} is of "
                    f"another kind than a run writes ({error!r}); give what a run wrote"
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
    """The count, and the share."""

    def show(run: Mapping[str, Any]) -> str:
        wins = run.get(key)
        return DASH if wins is None else f"{wins:,} ({wins / run['held_out']:.1%})"

    return show


def _coverage(deviations: int) -> Callable[[Mapping[str, Any]], str]:
    """Overall, and in the fifth of the pixels that is furthest from what is nominal."""

    def show(run: Mapping[str, Any]) -> str:
        key = f"coverage_{deviations}sd"
        if run.get(key) is None:
            return DASH
        return f"{run[key]:.1%} ({run[f'{key}_worst_quintile']:.1%})"

    return show


DASH = "\N{EM DASH}"
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
