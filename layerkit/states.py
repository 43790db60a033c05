"""States of a net: taken, put back, carried to another net, and left alone by an evaluation."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

from layerkit.arrays import narrowed
from layerkit.errors import NetError, brief
from layerkit.layer import Layer
from layerkit.names import Named, quoted

if TYPE_CHECKING:
    from layerkit.net import Net

COUNTED = 2**62  # passes, examples: the most that a state may say there have been


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


def copy_values(source: Net, target: Net) -> None:
    """Copy parameters, settings of layers and the state, but for the seed, from net to net.

    Raises:
        NetError: a parameter that the target's dtype cannot hold.
    """
    for name, p in source.params.items():
        if name in target.params:
            own, values = target.params[name], source.backend.to_host(p.data)
            values = narrowed(values, target.dtype, f"parameter {name!r}")
            own.data[...] = target.backend.asarray(values)
            for setting in ("trainable", "l1", "l2", "rate", "decay", "max_norm"):
                setattr(own, setting, getattr(p, setting))
    for layer in source.descriptions:
        copy_settings(layer, source.layers[layer.name], target.layers[layer.name])
    target.set_state({**source.state(), "seed": target.run.seed})


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
        elif isinstance(now, bool | int | float | str) and now != before:
            setattr(target, name, now)


def evaluate(net: Net) -> dict[str, float]:
    """Return the mean of each loss and metric over one epoch; leave no trace; see Net.evaluate."""
    counts = {x.name: x.count for x in net.sources()}
    if net.run.training:
        raise NetError("evaluate: make a net of phase 'test' for it, with share= this one")
    if net.inputs or len(set(counts.values())) != 1:
        raise NetError(
            "evaluate: the data must come from data layers (layerkit.with_data) of equal "
            f"length; there are {counts or 'none'}, and inputs {quoted(net.input_names())}"
        )
    state, kept = net.state(), (net.losses.copy(), net.metrics.copy())
    means = Named("loss or metric", {layer.name: 0.0 for layer in net.reported})
    count, seen = max(counts.values()), 0
    try:
        for source in net.sources():
            source.position = 0
        while seen < count:
            net.forward()
            seen += net.rows
            for name, value in {**net.losses, **net.metrics}.items():
                means[name] += value * net.rows / count
    finally:
        for mapping, values in zip((net.losses, net.metrics), kept, strict=True):
            mapping.clear()
            mapping.update(values)
        net.set_state(state)
    return means
