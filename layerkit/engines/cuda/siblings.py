"""Fewer and fuller calls of a step: Dense layers that read one blob are run together."""

from __future__ import annotations

from typing import Any

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.engines.cuda.runners.dense import TOGETHER, Dense


class Family:
    """Dense layers of equal sizes and activations that read one blob.

    Args:
        calls: their calls of the forward or backward pass.
        runners: their runners, in this order.

    Attributes:
        dx: where the sum of their derivatives by the blob goes: the diff that the first of them
            fills by itself, unless another array is put there.
    """

    def __init__(self, calls: list[Any], runners: list[Dense]):
        self.calls, self.runners, self.first = calls, runners, runners[0]
        self.x: Blob = calls[0].bottoms[0]
        self.tops = [call.tops[0] for call in calls]
        self.dx: Array | None = self.x.diff
        slices = self.first.spans * len(runners) if self.first.few else 0
        rows = self.first.layer.run.batch_size
        self._dx_sums = self.first.zeros(slices, rows * self.first.inputs)

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all tops."""
        self.first.forward_together(self.runners, self.x.data, self.tops)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Compute all gradients."""
        self.first.backward_together(self.runners, self.x.data, self.tops, self.dx, self._dx_sums)


def families(calls: list[Any], runners: dict[str, Any]) -> list[Family]:
    """Return the families, of two or more, among the calls of a plan.

    Layers whose parameters others use too are left out, as parts of a gradient are added up between
    their calls.
    """
    alike: dict[Any, list[Any]] = {}
    for call in calls:
        runner = runners[call.layer.name]
        if type(runner) is Dense and getattr(call, "sums", None) is None:
            setting, defines = runner.activation()
            shape = runner.inputs, call.layer.units, setting, *defines.values()
            wanted = call.bottoms[0].diff is not None
            alike.setdefault((call.bottoms[0].data.data.ptr, wanted, *shape), []).append(call)
    parts = [
        group[i : i + TOGETHER] for group in alike.values() for i in range(0, len(group), TOGETHER)
    ]
    return [
        Family(part, [runners[call.layer.name] for call in part]) for part in parts if len(part) > 1
    ]


def merged_forward(calls: list[Any], runners: dict[str, Any]) -> list[Any]:
    """Return the calls of a forward pass, a family's in the place of its first layer's."""
    whose = {id(call): family for family in families(calls, runners) for call in family.calls}
    made = []
    for call in calls:
        family = whose.get(id(call))
        if family is None:
            made.append(call)
        elif call is family.calls[0]:
            made.append(call._replace(call=family.forward, bottoms=[], tops=[]))
    return made


def merged_backward(calls: list[Any], runners: dict[str, Any]) -> list[Any]:
    """Return the calls of a backward pass, a family's in the place of its last layer's.

    Until then nothing reads their derivatives by the blob, and all that they need is there.  The
    family leaves one derivative in place of several that would have to be added up.
    """
    found = families(calls, runners)
    whose = {id(call): family for family in found for call in family.calls}
    spared = {id(call.bottoms[0]) for family in found for call in family.calls[1:]}
    of_first = {id(family.x): family for family in found}
    pending: dict[int, list[Any]] = {id(family): [] for family in found}
    made = []
    for call in calls:
        gathers = []
        for top, branches in call.gathers:
            rest = [branch for branch in branches if id(branch) not in spared]
            if len(rest) == 1 and len(branches) > 1:
                of_first[id(rest[0])].dx = top.diff
            else:
                gathers.append((top, rest))
        family = whose.get(id(call))
        if family is None:
            made.append(call._replace(gathers=gathers))
            continue
        pending[id(family)] += gathers
        if call is family.calls[-1]:
            made.append(
                call._replace(
                    call=family.backward, bottoms=[], tops=[], gathers=pending[id(family)]
                )
            )
    return made
