"""The folder that a run writes its results to, and their summary in a few lines."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from layerkit.errors import DataError
from layerkit.snapshot import write_atomically


def results_folder(path: str | os.PathLike[str]) -> Path:
    """The folder, made if need be and known to be writable before any work is done.

    Raises:
        DataError: it cannot be made or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot write to {folder}: {reason}; choose another --out") from error
    return folder


def set_aside(path: Path) -> None:
    """Renames an earlier file, so that a new run does not overwrite it: a.h5 to a.previous.h5."""
    if path.exists():
        kept = path.with_suffix(f".previous{path.suffix}")
        os.replace(path, kept)
        print(f"an earlier {path.name} is kept as {kept}")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes readable JSON in one move; JSON has no infinities, so they become null."""
    known = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()
    }
    text = json.dumps(known, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def summary(metrics: dict[str, Any]) -> str:
    """The main results in a few lines."""
    count = metrics["held_out"]

    def share(key: str) -> str:
        return f"{metrics[key]:>5} of {count} ({metrics[key] / count:.1%})"

    return "\n".join([
        f"bound on held-out galaxies         {metrics['held_out_elbo']:,.0f} nats per image "
        f"(training {metrics['train_elbo']:,.0f}, {metrics['bound_gap_percent']:.1f}% apart; "
        f"KL {metrics['held_out_kl']:.1f})",
        f"importance weighted bound          {metrics['held_out_iwae']:,.0f} nats per image "
        f"({metrics['iwae_samples']:,} samples)",
        f"better than the best Gaussian by squared error  {share('mse_wins')}   paper: 971 of 1000",
        f"better than the best Gaussian by likelihood     {share('likelihood_wins')}   "
        "paper: 972 of 1000",
        f"better than the best Sersic profile by squared error   {share('sersic_mse_wins')}",
        f"better than the best Sersic profile by likelihood      {share('sersic_likelihood_wins')}",
        f"better than PCA with {metrics['pca_components']} components, squared error  "
        f"{share('pca_mse_wins')}",
        "pixels within 1, 2 and 3 predicted sd  "
        + ", ".join(f"{metrics[f'coverage_{k}sd']:.1%}" for k in (1, 2, 3))
        + "   nominal: 68.3%, 95.4%, 99.7%",
        f"{metrics['iterations_per_second']:,.0f} iterations and "
        f"{metrics['images_per_second']:,.0f} images per second",
    ])
