"""A run: galaxies gathered, a net built and trained with a Trainer, and saved on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import layerkit as lk
from layerkit import layers as L
from layerkit import netfile
from layerkit.data.arrays import data_of
from layerkit.distributed import Communicator
from layerkit.errors import LayerkitError, NetError, SnapshotError
from layerkit.galaxy.evaluation.bounds import BOUND_SAMPLES, of_whole_images
from layerkit.galaxy.evaluation.coverage.latent_coverage import redrawn_coverage
from layerkit.galaxy.images.crop.crop import Settings as Preparation
from layerkit.galaxy.images.prepared import GalaxySet, spread_out
from layerkit.galaxy.layout import BEST, GALAXIES, HELD_OUT, MODEL, SETTINGS, SHEETS
from layerkit.galaxy.model.model import GalaxyModel
from layerkit.galaxy.model.population.stored import population_arrays, restore_population
from layerkit.galaxy.report import folder as folders
from layerkit.galaxy.training.resuming import Stretches, check_kept, other_galaxies, saved_settings
from layerkit.galaxy.training.run.gathering import CENTRED, Galaxies, gather_galaxies
from layerkit.galaxy.training.run.nets import picture_size, read_net, size_settings
from layerkit.galaxy.training.run.watching import Bar, Best, Watch, copy_parameters
from layerkit.galaxy.training.settings import RULES, settings_of
from layerkit.saving.runfile import write_toml
from layerkit.system import interrupt

SNAPSHOT_SECONDS = 20
ROWS = 256  # in a pass of the net that evaluates


@dataclass(frozen=True)
class Caller:
    """Who started a run, in words.

    Attributes:
        command: the command or the call, for the report.
        go_on: returns what resumes the run in a folder.
    """

    command: str
    go_on: Callable[[Path], str]


class Run:
    """A run in its folder, which nobody else works in meanwhile.

    Args:
        folder: of the run.
        given: its settings in plain form, those that were given.
        resume: whether the run continues from the snapshot in the folder.
        caller: who started it.
        comm: the processes that share the steps; the one that leads does all the rest.

    Attributes:
        settings: all of them.
        galaxies: to train on, watch and evaluate.
        net: the net that is trained.
        model: the model of a second net with the parameters of `net`.
        solver: of the net.
        stretches: the settings that the steps so far were trained with.
        best: the parameters with the best bound.
        watch: the learning curves.
        iterations: at which training ends.
        spent: seconds in steps so far.
        held_out_bounds: the encoder's bounds of up to 500 held-out galaxies, once it is trained.
        done: whether the model is trained, and its latent axes and temperatures are final.

    Raises:
        LayerkitError: anything wrong with settings, pictures, net or snapshot; the folder is as it
            was, but for newly prepared galaxies.
    """

    def __init__(
        self,
        folder: Path,
        given: Mapping[str, Any],
        resume: bool,
        caller: Caller,
        comm: Communicator,
    ):
        self.folder, self.file, self.caller, self.comm = folder, folder / MODEL, caller, comm
        if comm.leads:
            folders.finish_setting_aside(folder)
        comm.gather(None)  # others read in the folder when that is done
        self._saved = lk.snapshot.read_extra(self.file) if resume else {}
        before = saved_settings(self.file, self._saved) if resume else {}
        if resume:
            check_kept(self.file, given, before)
        self._before = before
        self.settings = settings_of(given, before, caller.command, resume)
        if comm.size > 1:
            self.settings.shards = self.settings.shards or comm.size
        self._aside: Path | None = None
        self._set_aside_all = False
        self._gather("net" in given)
        self._build()
        self.spent, self.done, self._was_done = 0.0, False, False
        self.held_out_bounds: list[float] = self._saved.get("held_out_bounds", [])
        self.stretches = Stretches([])
        if resume:
            self._restore(before)
        elif self.settings.centre:
            lk.centre_biases(self.model.net, x=data_of(self.galaxies.train[:CENTRED]))
        self._saved_iteration = self.solver.iteration
        self.stretches.begin(self.solver.iteration, self.settings)

    def _gather(self, net_given: bool) -> None:
        """Read the net, and gather galaxies of the size that it takes."""
        settings = self.settings
        # Built once by itself, so that a fault of the net or the backend shows before any work.
        layers, self._net_text = read_net(settings, self._saved, net_given)
        pixels = GalaxyModel(lk.Net(layers, 1, settings.backend, phase="test")).pixels
        file = Path(settings.net)
        known = netfile.settings_of(self._net_text, file, settings.net_values())
        side = picture_size(settings, known, pixels)
        found: Galaxies | None = None
        if self.comm.leads:
            found = gather_galaxies(settings, self.folder, side, self._replacing)
        others: Galaxies = self.comm.broadcast(found and found.to_train_on())
        self.galaxies = found or others
        sized = size_settings(settings, known, self.galaxies.train.shape[1])
        if sized:
            layers = netfile.layers_of(self._net_text, file, {**settings.net_values(), **sized})
        self._layers = layers
        print(
            f"{self.galaxies.count} galaxies to train on, {len(self.galaxies.watched)} to "
            f"watch training with, {len(self.galaxies.held_out)} held out"
        )

    def _replacing(self, name: str, new: GalaxySet) -> None:
        """Move results of an earlier run out before anything of this one takes their place."""
        if self.settings.resume:
            if self._saved.get(name) != new.digest:
                raise other_galaxies(self.file, self._before, self.settings)
        elif name == "prepared":
            self._set_aside(GALAXIES, SHEETS)
        else:
            self._set_aside(HELD_OUT)

    def _set_aside(self, *also: str, model: str = "move") -> None:
        found = folders.set_aside(self.folder, *also, model=model, into=self._aside)
        self._aside = found or self._aside

    def _build(self) -> None:
        """Build the net, with the galaxies in place of its Input layer, the model and the solver.

        The model's net shares the parameters and looks at other galaxies.
        """
        settings, galaxies = self.settings, self.galaxies
        layers_with_data = galaxies.layers(self._layers, settings)
        rows, seed = settings.batch * settings.samples, settings.seed
        layers, backend = self._layers, settings.backend
        self.net = lk.Net(layers_with_data, rows, backend, seed=seed)
        self.model = GalaxyModel(
            lk.Net(layers, ROWS, backend, seed=seed, phase="test", share=self.net),
            preparation=Preparation(**galaxies.preparation),
        )
        print(self.net)
        self.iterations = settings.steps(galaxies.count)
        # The rate of Adam falls along half a cosine.
        rate = lk.rates.Cosine(settings.rate, self.iterations, settings.end_rate)
        self.solver = lk.Adam(self.net, lk.rates.WarmUp(rate, settings.warm_up), clip=settings.clip)
        if settings.shards is not None:
            lk.Distributed(self.solver, self.comm, settings.shards)
            print(f"{settings.shards} shards of {rows} rows on {self.comm.describe()}")
        self.best = Best(layers, backend)
        self.watch = Watch(max(1, self.iterations // 200), self.model, galaxies.watched)

    def _restore(self, before: Mapping[str, Any]) -> None:
        """Go on from the snapshot."""
        saved = self._saved
        lk.load(self.file, self.net, self.solver)
        self.stretches = Stretches.read(self.file, saved, before)
        self.stretches.keep_as_trained(self.settings, self._ended)
        if saved.get("galaxies") != self.galaxies.counts["galaxies"]:
            raise other_galaxies(self.file, before, self.settings)
        try:
            self.watch.restore(saved)
            self.spent, self._was_done = float(saved["seconds"]), bool(saved["done"])
            self.model.temperature = saved["latent_temperature"]
            if self._was_done and self._ended:  # a net that trains on outgrows its population
                restore_population(self.model, lk.snapshot.read_arrays(self.file))
        except (LookupError, TypeError, ValueError, NetError) as error:
            raise SnapshotError(f"{self.file} lacks the history of a run ({error!r})") from error
        self.done = self._was_done and self._ended
        if self.settings.keep == "best":
            self.best.load(self.folder / BEST)
        print(f"resuming at iteration {self.solver.iteration} in {self.file}")

    @property
    def _ended(self) -> bool:
        return self.solver.iteration >= self.iterations

    def train(self) -> str:
        """Train, and save.

        Returns:
            "done", "interrupted", or "output lost" where nobody reads the output any more.

        Raises:
            LayerkitError: a loss that is not finite, or a model that cannot be saved.
        """
        self.watch.best = self.best if self.settings.keep == "best" else None
        breaks: list[lk.breaks.Break] = [
            lk.breaks.Schedule(layer.name, self._warm(layer.weight))
            for layer in self.net.layers.values()
            if isinstance(layer, L.GaussianKL)
        ]
        breaks += [
            self.watch,
            lk.breaks.Call(self._save_or_warn, seconds=SNAPSHOT_SECONDS, everywhere=False),
            Bar(unit="images", each=self.settings.batch * (self.settings.shards or 1)),
        ]
        with interrupt.Interrupt() as signals:  # a signal waits until the model is saved
            self._trainer = lk.Trainer(self.solver, breaks, interrupt=signals)
            self._trainer.run(until=max(self.iterations, self.solver.iteration))
            if not self.comm.leads:
                return "done" if self._ended else "interrupted"
            if self._ended:
                self._finish()
            if not (
                self.done and self._was_done and self.solver.iteration == self._saved_iteration
            ):
                try:
                    self._save()
                except (LayerkitError, OSError) as error:
                    folders.save_somewhere(self._save_into, error, self.folder)
        self.spent += self._trainer.seconds
        if self.done:
            print(
                f"trained and saved as {self.file}; --resume draws the rest, should it be "
                "interrupted"
            )
            return "done"
        print(
            f"stopped at iteration {self.solver.iteration} of {self.iterations}; continue with: "
            f"{self.caller.go_on(self.folder)}"
        )
        return "output lost" if signals.output_lost else "interrupted"

    def _warm(self, weight: float) -> Callable[[int], float]:
        """Let the weight of a KL term rise in the beginning."""
        steps = self.settings.kl_warm_up + 1
        return lambda iteration: weight * min(1.0, (iteration + 1) / steps)

    def _finish(self) -> None:
        """Watch the end, and make the axes of z and their temperatures final."""
        # A run that is resumed to end where it is may have been watched last long before, or never.
        watched = self.watch.history["iteration"]
        if not (watched and (self.done or watched[-1] == self.solver.iteration)):
            self.watch.take(self._trainer)
        if self.done:
            return
        if self.settings.keep == "best":
            copy_parameters(self.best.net, self.net)
        # Gives each axis of z the scale of the prior.
        self.model.standardise(self.galaxies.train)
        few = spread_out(len(self.galaxies.held_out))
        images = self.galaxies.held_out[few]
        bounds = self.model.net.run.same_noise(lambda: self.model.bound(images, BOUND_SAMPLES)[0])
        self.held_out_bounds = of_whole_images(bounds, images).tolist()
        # How far z scatters when the noise of a picture is drawn anew and the picture prepared
        # anew, beside what the likelihood says: the standard deviations of z take it in.
        measured = redrawn_coverage(
            self.model,
            self.galaxies.watched_pictures,
            self.settings.refine_steps,
            True,
            tempered=False,
        )
        self.model.temperature = measured.temperature() if measured else 1.0
        if not (measured and measured.is_sufficient):
            print(
                "too few pictures, or none, to redraw noise in: standard deviations of z are "
                "as the likelihood has them, unchecked"
            )
        self.done = True

    def write_settings(self, folder: Path) -> None:
        """Write the file that repeats the run, `layerkit galaxy train --config FILE`.

        Raises:
            OSError: it cannot be written.
        """
        settings = {name: vars(self.settings)[name] for name in RULES}
        write_toml(folder / SETTINGS, {**settings, "out": str(self.folder)})

    def _save_into(self, folder: Path) -> None:
        extra = {
            "settings": self.settings.kept(),
            "trained": self.stretches.found,
            "net_text": self._net_text,
            "galaxies": self.galaxies.counts["galaxies"],
            **self.galaxies.prepared,
            "preparation": self.galaxies.preparation,
            "history": self.watch.history,
            "recent": self.watch.recent,
            "seconds": self.spent + self._trainer.seconds,
            "done": self.done,
            "latent_temperature": self.model.temperature.tolist(),
            "held_out_ids": self.galaxies.ids,
            "held_out_bounds": self.held_out_bounds,
        }
        self.best.save(folder / BEST)
        lk.save(folder / MODEL, self.net, self.solver, extra, population_arrays(self.model))
        self.write_settings(folder)

    def _save(self) -> None:
        """Save into the folder.

        A run that starts, or that trains a finished model further, sets the finished one and all
        that was made of it aside, once it has something itself.
        """
        if not self._set_aside_all:
            if self.settings.resume:
                self._set_aside(model="copy" if self._was_done else "leave")
            else:
                self._set_aside(*self.galaxies.unused)
            self.best.saved.clear()  # what was there is there no more
            self._set_aside_all = True
        self._save_into(self.folder)

    def _save_or_warn(self, trainer: lk.Trainer) -> None:
        try:
            self._save()
        except (LayerkitError, OSError) as error:  # a full disk, say
            print(
                f"\nwarning: {error}; training continues, and tries again in {SNAPSHOT_SECONDS} s",
                file=sys.stderr,
            )
