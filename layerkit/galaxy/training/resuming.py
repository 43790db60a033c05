"""Resuming: the settings in a snapshot, read as carefully as if anybody had written them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerkit.errors import DataError, LayerkitError, SnapshotError
from layerkit.galaxy.training.settings import RULES, TRAINING, Settings, check_settings

KEPT = ("seed", "units")  # by a run from its beginning to its end


def saved_settings(file: Path, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a snapshot.

    Args:
        file: the snapshot.
        saved: its `extra`.

    Raises:
        SnapshotError: it is not of a training run.
    """
    try:
        found = dict(saved["settings"])
        held_out = found.get("held_out")
        if isinstance(held_out, str) and held_out.isdecimal():  # saved paths are absolute
            found["held_out"] = int(held_out)
        texts = {str(name): str(text) for name, text in found.pop("set").items()}
        kept = check_settings({name: value for name, value in found.items() if name in RULES})
        return {**kept, "set": texts, "command": str(found["command"])}
    except (LookupError, TypeError, ValueError, AttributeError, LayerkitError) as error:
        raise SnapshotError(
            f"{file} holds no training run that could be resumed ({error!r}); start one without "
            "--resume"
        ) from error


@dataclass
class Stretches:
    """Stretches of a run, each trained with settings of its own.

    Attributes:
        found: for each, the settings in TRAINING, and "from", the iteration it began at.
    """

    found: list[dict[str, Any]]

    @classmethod
    def read(cls, file: Path, saved: Mapping[str, Any], before: Mapping[str, Any]) -> Stretches:
        """Return those in a snapshot.

        Args:
            file: the snapshot.
            saved: its `extra`.
            before: its settings.

        Raises:
            SnapshotError: they are missing, or not as a run writes them.
        """
        before = {**Settings().kept(), **before}
        try:
            found = saved.get("trained", [{"from": 0, **{key: before[key] for key in TRAINING}}])
            starts = [stretch["from"] for stretch in found]
            if not starts or starts != sorted(starts) or not all(type(x) is int for x in starts):
                raise ValueError(starts)
            whole = [
                {**stretch, **saved_settings(file, {"settings": {**before, **stretch}})}
                for stretch in found
            ]
        except (LookupError, TypeError, ValueError) as error:
            raise SnapshotError(
                f"{file} lacks the settings that the run was trained with ({error!r})"
            ) from error
        return cls([{key: stretch[key] for key in ("from", *TRAINING)} for stretch in whole])

    def begin(self, iteration: int, settings: Settings) -> None:
        """Begin another stretch where the settings are not those of the last one."""
        now = settings.trained_with()
        if not self.found or now != {key: self.found[-1][key] for key in TRAINING}:
            self.found.append({"from": iteration, **now})

    def galaxies(self, iterations: int) -> int:
        """Count the galaxies in all steps so far, each as often as it was in one."""
        ends = [stretch["from"] for stretch in self.found[1:]] + [iterations]
        return sum(
            (end - stretch["from"]) * stretch["batch"] * (stretch["shards"] or 1)
            for stretch, end in zip(self.found, ends, strict=True)
        )

    def changes(self) -> str:
        """Return in words the settings that changed when the run was resumed, and when."""
        return "; ".join(
            f"{flag(key)} {'none' if old[key] is None else old[key]} until iteration {new['from']}"
            for old, new in itertools.pairwise(self.found)
            for key in TRAINING
            if old[key] != new[key]
        )

    def keep_as_trained(self, settings: Settings, finished: bool) -> None:
        """Put settings back that come too late to change how the model was trained, and say so."""
        kept = {"centre": self.found[0]["centre"]}
        if finished:
            last = self.found[-1]
            kept = {key: last[key] for key in TRAINING if key not in ("net", "set")} | kept
        late = [key for key, value in kept.items() if vars(settings)[key] != value]
        if late:
            print(
                f"no effect: {', '.join(map(flag, late))}; the model "
                + ("is trained already" if finished else "has begun training without")
            )
        vars(settings).update(kept)


def flag(name: str) -> str:
    """Return the option of the command line that gives a setting."""
    return f"--{name.replace('_', '-')}"


def check_kept(file: Path, given: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Refuse another seed, or other units, than the run was begun with.

    Raises:
        DataError: another value of KEPT.
    """
    defaults = Settings()
    for name in KEPT:
        begun = before.get(name, getattr(defaults, name))
        if given.get(name, begun) != begun:
            raise DataError(
                f"{file} was begun with {flag(name)} {begun}, and a resumed run keeps its {name}; "
                f"leave {flag(name)} out, or start without --resume"
            )


def other_galaxies(file: Path, before: Mapping[str, Any], now: Settings) -> DataError:
    """Make the error about a resumed run that finds other galaxies than it was trained on.

    Args:
        file: the snapshot.
        before: its settings.
        now: those of the resumed run.
    """
    old, new = _told({**vars(Settings()), **before}), _told(vars(now))
    changed = [name for name in old if old[name] != new[name]]
    if not changed:
        return DataError(
            f"{file} was trained on other galaxies than {now.data or 'the default'} gives now: the "
            "pictures, or how this layerkit prepares them, have changed; bring them back, or start "
            "without --resume"
        )
    was = ", ".join(f"{flag(name)} {old[name]}" for name in changed)
    return DataError(
        f"{file} was trained on other galaxies than {', '.join(map(flag, changed))} gives now: it "
        f"was begun with {was}; resume with that, or start without --resume"
    )


def _told(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that decide which galaxies there are, as text."""
    names = ("data", "held_out", "hdu", "tiny")
    found = {name: "none" if settings[name] is None else str(settings[name]) for name in names}
    sizes = [f"{k}={v}" for k, v in settings["set"].items() if k in ("side", "pixels")]
    return {**found, "set": " ".join(sizes) or "none"}
