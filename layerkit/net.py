"""The Net: wires a list of layers by blob names, runs it forward, and backward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np

from layerkit import backends, engines
from layerkit.errors import NetError, brief
from layerkit.inspection.display import html_table
from layerkit.inspection.drawing import Drawing
from layerkit.inspection.summary import summarise
from layerkit.layer import Layer
from layerkit.layers.sources.input import Input
from layerkit.passes import evaluation, feeding, finite
from layerkit.passes.inference import Inferences
from layerkit.passes.methods import QUIET, flushing, serialised
from layerkit.passes.running import Passes
from layerkit.run import Run
from layerkit.saving import copying, states
from layerkit.settings import Choice, Closed, Count, Flag, Name, Precision, Seed, checks, fitting
from layerkit.settings.names import Named
from layerkit.system.turns import Turns
from layerkit.system.uninterrupted import Uninterrupted
from layerkit.wiring import parameters
from layerkit.wiring.building import check_memory, make_blobs, set_up
from layerkit.wiring.sharing import lent, resolve
from layerkit.wiring.wires import Layers, Wires, checked_layers, connect, sort_layers


@checks
class Net(Closed):
    """A runnable net made from a list of layers.

    Args:
        layers: layer descriptions in any order; each is copied, so a list can make several nets.
            A list inside the list, such as a function of your own returns for a block of layers,
            stands for its layers, however deep.
        batch_size: the most examples in one pass; memory is allocated for this many.
        backend: "numpy", "cupy" or "auto".
        dtype: "float32" or "float64".
        seed: of the initial parameters and of everything random in the layers.
        phase: "train" or "test"; layers such as Dropout and data augmentation act in "train" only.
        share: a net whose parameters this one uses (by name) instead of having its own.
        share_only: names of parameters or layers, or patterns such as "encoder*", one or a list:
            only these are taken from `share`, and are trained there; here they are frozen, and
            cannot be unfrozen.  None, the default, takes all.
        gradients: which blobs get a diff: those that lead from a trainable parameter to a loss
            ("parameters", the default in phase "train"), every blob ("all"), or none ("none", the
            default in phase "test").
        kernels: "auto" runs compiled kernels where there are any, of C++ on the CPU and of CUDA on
            the GPU; "array" the array code that is their specification.
        tf32: on a GPU, lets matrix products of float32 round their factors to 10 bits, which is
            faster.  False by default.

    Attributes:
        layers: name -> Layer, in the order in which they run.
        blobs: name -> Blob.
        params: "layer/parameter" -> Parameter.
        arena: the flat arrays behind the parameters.
        statistics: "layer/statistic" -> Statistic, such as the running means of BatchNorm.
        losses: name -> mean over the examples of each loss layer, unweighted, of the last pass.
        metrics: name -> mean of each metric layer, such as Accuracy, of the last pass.
        reported: the layers that losses and metrics come from, losses first.
        inputs: the Input layers.
        sharing: the arguments `share` and `share_only`, if parameters are another net's.
        regularisation: the L1 and L2 terms of the last pass.
        run: what the layers share: seed, pass number, phase.
        engine: how layers are run; see layerkit.engines.
        runners: layer name -> the layer with the code that runs it.
        passes: the passes by a plan of calls, for solvers; see layerkit.passes.running.
        wires: the blobs that each layer reads and writes; see layerkit.wiring.wires.
        version: changes whenever blobs are given diffs, or none, anew.
        passed: whether there is a forward pass that `backward` can differentiate.
        differentiated: whether `backward` has filled the diffs of the parameters, and no solver has
            followed them yet.
        lock: held by every call of this net, of its solvers and of the nets that share parameters
            with it, so several threads can use them: one call runs after another.  Hold it
            (`with net.lock:`) to read blobs or diffs before another thread's next call.

    Nets can be copied (`copy.deepcopy`) and pickled, with parameters and all that decides the next
    pass; a net that shares parameters takes the other one along.  `rebuild` makes another net with
    other settings, `layerkit.save` a file that nothing but layerkit's own code reads.

    Raises:
        NetError: layers that cannot be wired; the message names the layer and what is wrong.
        BackendError: the backend is not there.
    """

    fixed = (
        *("layers", "batch_size", "backend", "dtype", "seed", "phase", "share", "share_only"),
        *("gradients", "kernels", "tf32"),
        *("blobs", "params", "statistics", "descriptions", "inputs", "losses", "metrics"),
    )
    instead = "make another net, with net.rebuild(dtype=...), say, or Net(layers)"

    def __init__(
        self,
        layers: Layers,
        batch_size: Count = 64,
        backend: Annotated[str, Name()] = "numpy",
        dtype: Annotated[str, Precision()] = "float32",
        seed: Seed = 0,
        phase: Annotated[str, Choice("train", "test")] = "train",
        share: Net | None = None,
        gradients: Annotated[str, Choice("parameters", "all", "none")] | None = None,
        kernels: Annotated[str, Choice("auto", "array")] = "auto",
        tf32: Flag = False,
        share_only: str | Sequence[str] | None = None,
    ):
        if gradients is None:
            gradients = "parameters" if phase == "train" else "none"
        if share is not None and not isinstance(share, Net):
            raise NetError(f"Net: share must be another net, or None, got {brief(share)}")
        layers = checked_layers(layers)
        self.lock: Turns = Turns() if share is None else share.lock
        self.backend = backends.get(backend, tf32)
        self.xp = self.backend.xp
        self.dtype = np.dtype(dtype)
        self.gradients = gradients
        self.kernels = kernels
        self.run = Run(self.backend, self.dtype, batch_size, seed, phase == "train")
        self.engine = engines.choose(self.backend, self.dtype, kernels)
        self.run.flushed = self.engine.flushed
        self.tf32 = tf32
        self.sharing = {} if share is None else {"share": share, "share_only": share_only}
        self.descriptions = [layer.copied() for layer in layers]
        self.layers: Named[Layer] = Named(
            "layer",
            {layer.name: layer.attach(self.run) for layer in sort_layers(layers)},
            "change net.descriptions and make another net of them",
        )
        shapes = set_up(self.layers.values())
        resolve(self.layers.values())
        self.runners = {name: self.engine.bind(layer) for name, layer in self.layers.items()}
        self.params = parameters.gather(self.layers.values())
        declared, with_diffs = list(self.params.values()), gradients != "none"
        whole = share is not None and share_only is None
        check_memory(self.layers.values(), shapes, self.run, with_diffs, whole)
        self.arena = parameters.place(declared, self.run, with_diffs, share, share_only)
        self.statistics = states.gather(self.layers.values(), share, whole)
        made = list(self.layers.values())
        self.reported = [x for x in made if x.is_loss] + [x for x in made if x.is_metric]
        # Side by side, so that one kernel can read them all.
        self.values = self.backend.zeros((len(self.reported), batch_size), self.dtype)
        self.blobs = make_blobs(shapes, made, self.reported, self.values, self.run)
        self.inputs = [layer for layer in self.layers.values() if isinstance(layer, Input)]
        self.passes = Passes(self)
        self._inferences = Inferences(self)
        self.wires = Wires()
        self._rows = batch_size
        self.passed = self.differentiated = False
        self.version = 0
        self.rewire()
        self.losses: Named[float] = Named("loss")  # none before the first pass
        self.metrics: Named[float] = Named("metric")
        self.regularisation = 0.0

    # Building.

    def rewire(self) -> None:
        """Decide anew which blobs get a diff, and who writes where in the backward pass."""
        self.version += 1
        rows = self._rows
        self.resize(self.run.batch_size)
        self.wires = connect(list(self.layers.values()), self.blobs, self.gradients, self.run)
        self.resize(rows)
        self._plan = self.passes.plan(at_once=False)

    def resize(self, rows: int) -> None:
        """Make all blobs and buffers views of so many rows; on an interrupt, of those before."""
        buffers = (buffer for layer in self.layers.values() for buffer in layer.buffers)
        blobs, before = [*self.blobs.values(), *self.wires.branches, *buffers], self._rows

        def set_rows(count: int) -> None:
            for blob in blobs:
                blob.resize(count)
            self._rows = count

        try:
            set_rows(rows)
        except BaseException:
            set_rows(before)
            raise

    # Parameters.

    @fitting(NetError)
    def freeze(self, *patterns: str) -> None:
        """Stop training the parameters whose names match, such as "g1/weight" or "g*".

        Blobs that no trainable parameter needs any more lose their diff.

        Raises:
            NetError: a pattern that matches no parameter.
        """
        self._set_trainable(patterns, False)

    @fitting(NetError)
    def unfreeze(self, *patterns: str) -> None:
        """Train the parameters whose names match again."""
        self._set_trainable(patterns, True)

    @serialised
    def _set_trainable(self, patterns: Iterable[str], trainable: bool) -> None:
        matching = parameters.matching(self.params, patterns, lent(self.layers.values()))
        with Uninterrupted():
            for p in matching:
                p.trainable = trainable
            self.rewire()

    # Running.

    @QUIET
    @serialised
    @flushing
    def forward(self, /, **inputs: Any) -> float:
        """Run every layer; return the objective.

        Args:
            inputs: one array for the blob of each Input layer, of n rows each, n at most the batch
                size.  Rows may have any shape with the right number of elements.

        Returns:
            The sum over loss layers of weight * loss (a mean per example), plus L1 and L2 terms.

        Raises:
            NetError: a missing, unknown or misshapen input, masked values, or integers that do not
                keep their value in the net's floats (`integers` of Input keeps it).
            ContractError: a layer that breaks its contract with the net.
        """
        return self.passes.forward(self._plan, inputs)

    def input_names(self) -> list[str]:
        """List the blobs that a caller gives to each pass."""
        return [layer.tops[0] for layer in self.inputs]

    @QUIET
    @serialised
    @flushing
    def backward(self, /, **diffs: Any) -> None:
        """Fill the diff of every trainable parameter and of every blob that needs one.

        Differentiates the objective of the last forward pass.

        Args:
            diffs: for any named blob, the derivative of some further objective with respect to it,
                which is added to what comes from the losses.

        Raises:
            NetError: a net without gradients, a named blob without a diff, or no forward pass since
                the net was built or its parameters last changed.
            ContractError: a layer that breaks its contract with the net.
        """
        diffs = feeding.check_diffs(self, diffs)
        self.differentiated = False
        self.passes.backward(self._plan, diffs)
        self.differentiated = True

    @QUIET
    @serialised
    @flushing
    def infer(self, outputs: str | Sequence[str], /, sample: bool = True, **given: Any) -> Any:
        """Compute the values of some blobs given those of others, by the layers in between alone.

        Any blob can be given, not only inputs: `net.infer("x_mean", z=z)` decodes.  Layers act as
        in phase "test", so nothing is left out by Dropout.  Nothing in the net changes: neither its
        blobs and diffs nor the noise of later passes.

        Args:
            outputs: the name of a blob, or a list of names.
            sample: False makes sampling layers return the mean of what they sample.
            given: arrays of equally many rows, however many; they pass in batches.  If no blob is
                needed, as in a generator that L.Normal feeds, `count=16` says how many rows.

        Returns:
            A NumPy array of shape (rows, *shape), or a list of them where `outputs` is a list.

        Raises:
            NetError: an unknown blob, an array that does not fit, or an input that is needed.
        """
        count = None if "count" in self.blobs else given.pop("count", None)
        return self._inferences.infer(outputs, sample, given, count=count)

    @QUIET
    @serialised
    @flushing
    def evaluate(
        self,
        data: Any = None,
        /,
        *,
        processes: evaluation.Processes | None = None,
        progress: Flag = False,
    ) -> dict[str, float]:
        """Average each loss and metric over a set of any length, each example seen once.

        `net.evaluate({"x": images, "t": labels})` works in a net of either phase: layers act as in
        phase "test", as in `infer`, and nothing in the net changes.  Calls repeat their noise until
        the next forward pass.

        Args:
            data: arrays of equally many rows by blob, or a data layer, such as
                `L.HDF5Data("d", path=..., tops=["x", "t"])`, with tops named like the blobs that
                it fills; it is read in order, without augmentation.  None, the default, takes the
                net's own data layers, in a net of phase "test": `Net(layers, phase="test",
                share=net).evaluate()`.  Their positions, seed and pass are then as they were.
            processes: from layerkit.distributed.mpi(), say: each evaluates a stretch of the
                batches, and all return the means over all, whose bits do not depend on how many
                processes there are.  None, the default, evaluates all here.
            progress: True shows a bar if it takes more than a second; False is the default.

        Returns:
            Layer name -> mean over the examples, unweighted, losses first.  The last batch has
            fewer rows, and weighs less.

        Raises:
            NetError: a blob that is missing, unknown or does not fit; without data, a net of phase
                "train", with Input layers, or without data layers.
        """
        if data is None:
            return evaluation.of_own_data(self, processes, progress)
        return evaluation.of_given(self, self._inferences, data, processes, progress)

    # State.

    @serialised
    def state(self) -> dict[str, int]:
        """Return what decides the next pass, but for the parameters: seed, pass, data positions."""
        return states.get_state(self)

    @serialised
    def set_state(self, state: dict[str, int]) -> None:
        """Put back what `state` returned.

        Raises:
            NetError: something is missing, or no whole number in bounds; nothing has changed then.
        """
        states.set_state(self, state)

    @property
    def rows(self) -> int:
        """The number of examples of the last pass, and of the next unless other inputs come."""
        return self._rows

    def sources(self) -> list[Any]:
        """List the data layers."""
        return [layer for layer in self.layers.values() if layer.is_source]

    @serialised
    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return copying.reduced_net(self)

    @serialised
    def __copy__(self) -> Net:
        return copying.net_of(type(self), copying.parts_of_net(self))

    @serialised
    def __deepcopy__(self, memo: dict[int, Any], /) -> Net:
        return copying.copied_net(self, memo)

    @serialised
    def rebuild(self, **changes: Any) -> Net:
        """Make a new net of these layers, with the parameter values, weights and state of this one.

        Args:
            changes: arguments of Net that differ, such as dtype="float64" or gradients="all".
        """
        net = Net(self.descriptions, **{**states.settings_of(self), **changes})
        states.copy_values(self, net)
        return net

    @serialised
    def first_non_finite(self) -> str | None:
        """Name the first parameter, blob or diff with an infinity or not-a-number, or None."""
        return finite.first_non_finite(self)

    def draw(self) -> Drawing:
        """Draw the net: layers as boxes, blobs as arrows.

        `print(net.draw())` is Graphviz's text, `net.draw().mermaid` Mermaid's, and
        `net.draw().save("net.svg")` a picture, where Graphviz is installed; a notebook shows it.
        """
        return Drawing(self)

    def __str__(self) -> str:
        """Return a table of the layers, with their blobs, shapes and parameters."""
        return summarise(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(str(self))
