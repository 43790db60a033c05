"""States of a net: taken, put back, carried to another net."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import TYPE_CHECKING, Any

from layerkit.blob import Parameter, Statistic
from layerkit.data.arrays import narrowed, rounded
from layerkit.errors import NetError, brief
from layerkit.layer import Layer
from layerkit.settings.names import Named, quoted
from layerkit.wiring.sharing import owner_of

if TYPE_CHECKING:
    from layerkit.net import Net

COUNTED = 2**62  # passes, examples: the most that a state may say there have been
OF_PARAMETERS = ("trainable", "l1", "l2", "rate", "decay", "max_norm")  # settings of each


def get_state(net: Net) -> dict[str, int]:
    """Return seed, pass and data positions."""
    positions = {f"position/{x.name}": x.position for x in net.sources()}
    return {"seed": net.run.seed, "passes": net.run.passes, **positions}


def set_state(net: Net, state: Any) -> None:
    """Put back what `get_state` returned.

    Raises:
        NetError: something is missing, or no whole number in bounds; nothing has changed then.
    """
    own = get_state(net)
    if not isinstance(state, dict):
        raise NetError(f"state: expected what net.state() returned, got {brief(state)}")
    for name in own:
        value = state.get(name)
        least, most = (-(2**63), 2**63 - 1) if name == "seed" else (0, COUNTED)
        if not isinstance(value, int | Integral) or not least <= int(value) <= most:
            raise NetError(
                f"state: {name!r} must be a whole number from {least} to {most}, got "
                f"{brief(value)}; the state of this net has {quoted(own)}"
            )
    net.passed = net.differentiated = False
    net.run.seed, net.run.passes = int(state["seed"]), int(state["passes"])
    for source in net.sources():
        source.position = int(state[f"position/{source.name}"])


def settings_of(net: Net) -> dict[str, Any]:
    """Return the settings of Net that make a net like this one."""
    return {
        "batch_size": net.run.batch_size,
        "backend": net.backend.name,
        "dtype": net.dtype.name,
        "seed": net.run.seed,
        "phase": "train" if net.run.training else "test",
        "gradients": net.gradients,
        "kernels": net.kernels,
        "tf32": net.tf32,
    }


def gather(layers: Iterable[Layer], share: Net | None, whole: bool) -> Named[Statistic]:
    """Return what all layers measure, by name.

    Args:
        layers: of the net.
        share: another net, whose statistics those of this one stand for, or None.
        whole: whether that holds for all layers, or only for those that borrow all parameters.

    Raises:
        NetError: the other net, or a layer that lends its parameters, has no such statistic of this
            shape.
    """
    found: dict[str, Statistic] = {}
    layers = list(layers)
    by_name = {layer.name: layer for layer in layers}
    for layer in layers:
        if layer.shares is not None:
            continue
        found.update({s.name: s for s in layer.statistics.values()})
        own = layer.parameters.values()
        borrows = whole or (bool(own) and all(p.borrowed for p in own))
        if share is None or not borrows:
            continue
        for s in layer.statistics.values():
            its = share.statistics.get(s.name)
            if its is None or its.shape != s.shape:
                had = f"has shape {its.shape} there" if its else "is not in the other net"
                raise NetError(f"share: statistic {s.name!r} of shape {s.shape} {had}")
            s.bind(its.data)
    for layer in layers:  # what parameters are lent for is measured together
        owner = owner_of(layer, by_name)
        for key, s in layer.statistics.items() if owner is not layer else ():
            its = owner.statistics.get(key)
            if its is None or its.shape != s.shape:
                layer.fail(
                    f"shares: layer {owner.name!r} ({type(owner).__name__}) has no statistic "
                    f"{key!r} of shape {s.shape}, which would be shared too"
                )
            s.bind(its.data)
    return Named(
        "statistic", found, "write into its array: net.statistics[name].data[...] = values"
    )


def copy_values(source: Net, target: Net) -> None:
    """Copy parameters, statistics, settings of layers and the state, but for the seed.

    Raises:
        NetError: a parameter or statistic that the target's dtype cannot hold.
    """
    for name, s in source.statistics.items():
        if name in target.statistics:
            values = narrowed(source.backend.to_host(s.data), target.dtype, f"statistic {name!r}")
            target.statistics[name].data[...] = target.backend.asarray(values)
    for name, p in source.params.items():
        if name in target.params:
            own, values = target.params[name], source.backend.to_host(p.data)
            values = rounded(values, target.dtype, f"parameter {name!r}")
            own.data[...] = target.backend.asarray(values)
            set_parameter(own, of_parameter(p))
    for layer in source.descriptions:
        copy_settings(layer, source.layers[layer.name], target.layers[layer.name])
    target.set_state({**source.state(), "seed": target.run.seed})


def of_parameter(p: Parameter) -> dict[str, Any]:
    """Return the settings of a parameter."""
    return {name: getattr(p, name) for name in OF_PARAMETERS}


def set_parameter(p: Parameter, settings: dict[str, Any]) -> None:
    """Give a parameter the settings of another; one that another net lends stays frozen."""
    for name, value in settings.items():
        if name != "trainable" or not p.borrowed:
            setattr(p, name, value)


def copy_settings(described: Layer, source: Layer, target: Layer) -> None:
    """Give a layer the settings that another has been given since its description was written.

    A net's phase decides some settings of data layers, which are left alone.
    """
    for name, before in vars(described).items():
        now = vars(source).get(name, before)
        if isinstance(before, Layer) and isinstance(now, Layer):  # such as an activation
            copy_settings(before, now, vars(target)[name])
        elif name in target.fixed or name.startswith("_") or described.is_source:
            continue
        elif _is_plain(now) and (not _is_plain(before) or now != before):
            setattr(target, name, now)


def _is_plain(value: Any) -> bool:
    """Tell whether a value is what settings are: a number, text, None, or a tuple of these."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def learned(net: Net) -> dict[str, Any]:
    """Return all that training changes in a net, by name: parameters, and statistics of layers."""
    return {**net.params, **net.statistics}
