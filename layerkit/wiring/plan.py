"""Plan: the calls of layers that a forward and a backward pass make, in order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from layerkit.blob import Blob
from layerkit.engines.base import Runner
from layerkit.layer import Layer
from layerkit.wiring import contract
from layerkit.wiring.sharing import Sum
from layerkit.wiring.wires import Wires

Call = Callable[[list[Blob], list[Blob]], None]


class Forward(NamedTuple):
    """A call of a forward pass, with the blobs to make it with."""

    layer: Layer
    call: Call
    bottoms: list[Blob]
    tops: list[Blob]
    recordable: bool


class Backward(NamedTuple):
    """A call of a backward pass; `gathers` and `sums` are what is added up before and after it."""

    layer: Layer
    call: Call
    bottoms: list[Blob]
    tops: list[Blob]
    recordable: bool
    gathers: list[tuple[Blob, list[Blob]]]
    sums: list[Sum] | None


@dataclass
class Plan:
    """The calls of a forward and a backward pass, in order.

    Attributes:
        losses: names of the layers whose backward pass is part of the forward pass.
        updates: calls that change parameters, after the backward pass, without their diffs.
        updated: names of these parameters.
        forward_checked, backward_checked: whether a first pass has shown that the layers keep their
            contract with the net.
        programs: what engines keep to make these calls again; see ArrayEngine.repeat.
    """

    forward: list[Forward] = field(default_factory=list)
    backward: list[Backward] = field(default_factory=list)
    losses: set[str] = field(default_factory=set)
    updates: list[Backward] = field(default_factory=list)
    updated: set[str] = field(default_factory=set)
    forward_checked: bool = False
    backward_checked: bool = False
    programs: dict[str, dict[Any, Any]] = field(
        default_factory=lambda: {"forward": {}, "backward": {}, "look": {}, "update": {}}
    )

    def check_forward(
        self,
        recordable: bool,
        layer: Layer,
        call: Call,
        bottoms: list[Blob],
        tops: list[Blob],
        way: str,
    ) -> None:
        """Make a call of the forward pass, and check that its layer keeps the contract."""
        contract.forward(layer, call, bottoms, tops, self.losses)

    def check_backward(
        self,
        recordable: bool,
        layer: Layer,
        call: Call,
        bottoms: list[Blob],
        tops: list[Blob],
        way: str,
    ) -> None:
        """Make a call of the backward pass, and check that its layer keeps the contract."""
        contract.backward(layer, call, bottoms, tops, self.updated)

    def __repr__(self) -> str:
        return (
            f"Plan({len(self.forward)} forward calls, {len(self.backward)} backward calls, "
            f"{len(self.updated)} parameters updated by layers)"
        )


def make_plan(wires: Wires, runners: Mapping[str, Runner], update: Any, at_once: bool) -> Plan:
    """Plan the calls of a training step, in which layers do at once what they can.

    A loss whose top nothing else reads computes its diffs together with its value: what they are
    multiplied by, weight / rows, is known beforehand.  A layer whose parameters are all trained,
    and none regularised, shared or given a rate of its own, changes them without filling their
    diffs.  It does so when the backward pass is over, and all gradients are known to be finite.

    Args:
        wires: the blobs of each layer.
        runners: name of each layer -> the object that runs it.
        update: an engines.base.Update for layers that can update their parameters, or None.
        at_once: False for the calls of `Net.forward` and `Net.backward`, each on its own.
    """
    plan = Plan()
    backward = {call.layer.name: (call.bottoms, call.tops) for call in wires.backward}
    together = {call.layer.name for call in wires.backward if call.sums is not None}
    read = {b for layer, _, _ in wires.forward for b in layer.bottoms}
    for layer, bottoms, tops in wires.forward:
        runner = runners[layer.name]
        call = runner.forward
        both = at_once and layer.is_loss and runner.forward_backward is not None
        both = both and layer.name not in together
        if both and layer.name in backward and tops[0].name not in read:
            plan.losses.add(layer.name)
            call, (bottoms, tops) = runner.forward_backward, backward[layer.name]
        plan.forward.append(Forward(layer, call, bottoms, tops, runner.recordable))
    for layer, bottoms, tops, gathers, sums in wires.backward:
        runner = runners[layer.name]
        call = runner.backward
        own = layer.parameters.values()
        plain = (
            own
            and sums is None
            and all(p.trainable and not any(p.penalty) and p.rate == p.decay == 1 for p in own)
        )
        if update is not None and plain and runner.backward_update is not None:
            plan.updated.update(p.name for p in own)
            change = functools.partial(runner.backward_update, update=update)
            plan.updates.append(Backward(layer, change, bottoms, tops, runner.recordable, [], None))
            call = runner.backward_bottoms
        if layer.name not in plan.losses:
            plan.backward.append(
                Backward(layer, call, bottoms, tops, runner.recordable, gathers, sums)
            )
    return plan
