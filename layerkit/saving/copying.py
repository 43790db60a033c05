"""Copies of nets and solvers, by `copy` and `pickle`: made anew from all that they depend on."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

from layerkit.errors import NetError, brief
from layerkit.saving import states

if TYPE_CHECKING:
    from layerkit.net import Net
    from layerkit.solvers.solver import Solver


def parts_of_net(net: Net) -> dict[str, Any]:
    """Return all that a net is made of, in objects that can be copied and pickled."""
    layers = [layer.copied() for layer in net.descriptions]
    for described, layer in zip(net.descriptions, layers, strict=True):
        states.copy_settings(described, net.layers[layer.name], layer)
    return {
        "layers": layers,
        "settings": {**states.settings_of(net), **net.sharing},
        "arrays": {k: net.backend.to_host(x.data) for k, x in states.learned(net).items()},
        "parameters": {p.name: states.of_parameter(p) for p in net.params.values()},
        "state": net.state(),
    }


def net_of(kind: type[Net], parts: dict[str, Any]) -> Net:
    """Make a net of its parts."""
    net = kind(parts["layers"], **parts["settings"])
    for name, own in states.learned(net).items():
        own.data[...] = net.backend.asarray(parts["arrays"][name])
    for p in net.params.values():
        states.set_parameter(p, parts["parameters"][p.name])
    net.rewire()
    net.set_state(parts["state"])
    return net


def copied_net(net: Net, memo: dict[int, Any]) -> Net:
    """Return a deep copy of a net, and of the net that it shares parameters with.

    Arrays of data layers are the ones that the net has: nothing changes them.
    """
    parts = parts_of_net(net)
    parts["settings"] = copy.deepcopy(parts["settings"], memo)
    return net_of(type(net), parts)


def reduced_net(net: Net) -> Any:
    """Return what pickle stores of a net.

    Raises:
        NetError: a layer that cannot be pickled, by name.
    """
    parts = parts_of_net(net)
    for layer in parts["layers"]:
        check_pickles(layer, layer.label())
    return net_of, (type(net), parts)


def parts_of_solver(solver: Solver) -> dict[str, Any]:
    """Return all that a solver is made of, but for its net.

    Raises:
        NetError: an argument of its constructor that it does not keep, or the net holds the
            average of its parameters.
    """
    net = solver.net
    net.lock.check_own(net.arena.data, NetError, f"{solver.label()}: cannot be copied")
    settings = {}
    for name, p in inspect.signature(type(solver).__init__).parameters.items():
        if name not in ("self", "net") and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            if name not in vars(solver):
                raise NetError(
                    f"{solver.label()}: cannot be copied or pickled, as it keeps no attribute "
                    f"{name!r} for the argument of its constructor"
                )
            settings[name] = vars(solver)[name]
    apart = {"net", "history", "spans", "team", *settings}
    attributes = {k: v for k, v in vars(solver).items() if k[0] != "_" and k not in apart}
    return {
        "settings": settings,
        "attributes": {k: list(v) if isinstance(v, list) else v for k, v in attributes.items()},
        "history": {k: net.backend.to_host(a) for k, a in solver.history.items()},
    }


def solver_of(kind: type[Solver], net: Net, parts: dict[str, Any]) -> Solver:
    """Make a solver of its parts."""
    solver = kind(net, **parts["settings"])
    for name, value in parts["attributes"].items():
        setattr(solver, name, value)
    for name, flat in solver.history.items():
        flat[...] = net.backend.asarray(parts["history"][name])
    return solver


def reduced_solver(solver: Solver) -> Any:
    """Return what pickle stores of a solver, its net among it.

    Raises:
        NetError: a setting that cannot be pickled.
    """
    parts = parts_of_solver(solver)
    for name, value in {**parts["settings"], **parts["attributes"]}.items():
        check_pickles(value, f"{solver.label()}: {name}, {brief(value)},")
    return solver_of, (type(solver), solver.net, parts)


class _Probe(pickle.Pickler):
    """A pickler that leaves arrays out, as they can always be pickled."""

    def persistent_id(self, value: Any) -> str | None:
        return "" if isinstance(value, np.ndarray) and value.dtype.kind != "O" else None


def check_pickles(value: Any, what: str) -> None:
    """Fail if a value cannot be pickled.

    Raises:
        NetError: names `what` cannot be.
    """
    try:
        _Probe(io.BytesIO()).dump(value)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise NetError(
            f"{what} cannot be pickled ({reason}); layerkit.save stores values"
        ) from error
