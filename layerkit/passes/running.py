"""Running: the forward and the backward pass of a net, made by a plan of its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerkit.backends.base import Array
from layerkit.engines.base import Make, Runner, call_layer
from layerkit.passes import feeding
from layerkit.passes.objective import Objective
from layerkit.wiring.part import Part
from layerkit.wiring.plan import Plan, make_plan

if TYPE_CHECKING:
    from layerkit.net import Net


class Passes(Part):
    """The passes of a net, for the net itself and for its solvers.

    Args:
        net: the net, built but for its plan.
    """

    def __init__(self, net: Net):
        super().__init__(net)
        self._objective = Objective(net)
        self._settings = [
            runner.settings
            for runner in net.runners.values()
            if type(runner).settings is not Runner.settings
        ]

    def plan(self, update: Any = None, at_once: bool = True) -> Plan:
        """Plan the calls of a training step; see layerkit.wiring.plan.make_plan."""
        return make_plan(self.net.wires, self.net.runners, update, at_once)

    def forward(self, plan: Plan, inputs: dict[str, Any]) -> float:
        """Make a forward pass by a plan; return the objective."""
        net = self.net
        feeding.feed(net, inputs)
        net.passed = False
        net.run.passes += 1
        net.engine.begin_pass(net.run)
        for layer, _, _, tops, _ in plan.forward:
            if layer.name in plan.losses:
                tops[0].diff.fill(layer.weight / net.rows)

        def calls(make: Make) -> None:
            for layer, call, bottoms, tops, recordable in plan.forward:
                make(recordable, layer, call, bottoms, tops, way="forward")
            self._objective.measure()

        if plan.forward_checked:
            net.engine.repeat(plan.programs["forward"], self.key(), calls)
        else:
            calls(plan.check_forward)
        plan.forward_checked = net.passed = True
        net.engine.end_pass(net.run)
        return self._objective.value()

    def backward(self, plan: Plan, diffs: dict[str, Array]) -> None:
        """Make a backward pass by a plan.

        Args:
            plan: that of the forward pass before.
            diffs: name of a blob -> what is added to its diff; see Net.backward.
        """
        engine = self.net.engine
        losses = [call.layer for call in plan.backward if call.layer.is_loss]
        shares = self._objective.shares(losses)

        def calls(make: Make) -> None:
            for layer, call, bottoms, tops, recordable, gathers, sums in plan.backward:
                engine.gather(gathers)
                if layer.is_loss:
                    engine.add_number(shares[layer.name], tops[0].diff)
                for top in tops:
                    if top.name in diffs:
                        top.diff += diffs[top.name]
                make(recordable, layer, call, bottoms, tops, way="backward")
                for part, total in sums or ():
                    engine.add_to(total, part)

        if not plan.backward_checked:
            calls(plan.check_backward)
        elif diffs:
            calls(call_layer)
        else:
            engine.repeat(plan.programs["backward"], self.key(), calls)
        plan.backward_checked = True
        for p in self.net.wires.idle:
            p.diff.fill(0)
        self._objective.add_regularisation()

    def key(self) -> tuple[Any, ...]:
        """Return what decides, with the plan, the calls of a pass: rows and layers' settings."""
        self.net.run.clock()
        return self.net.rows, *[settings() for settings in self._settings]
