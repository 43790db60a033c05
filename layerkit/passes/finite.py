"""Finite numbers: the first place in a net that holds an infinity or not-a-number, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerkit.net import Net


def check_data(net: Net) -> None:
    """Fail where a layer's bottoms hold what it cannot work on; see Layer.check_data.

    Raises:
        DataError: names the layer, and where what it got is.
    """
    for layer, bottoms, _ in net.wires.forward:
        layer.check_data(bottoms)


def non_finite_data(net: Net) -> str | None:
    """Say where data that came into the net are not finite; None if they are."""
    for layer in [*net.inputs, *net.sources()]:
        for top in layer.tops:
            data = net.blobs[top].data
            bad = ~net.xp.isfinite(data.reshape(len(data), -1)).all(axis=1)
            if bool(bad.any()):
                return f"row {int(bad.argmax())} of the batch in blob {top!r}"
    return None


def first_non_finite(net: Net) -> str | None:
    """Name the first parameter, blob or diff that is not finite; None if all are."""
    isfinite = net.xp.isfinite
    for name, p in net.params.items():
        if not bool(isfinite(p.data).all()):
            return f"parameter {name!r}"
    for name, blob in net.blobs.items():
        if not bool(isfinite(blob.data).all()):
            return f"blob {name!r}"
    for _, _, tops, *_ in net.wires.backward:
        for blob in tops:
            if not bool(isfinite(blob.diff).all()):
                return f"the diff of blob {blob.name!r}"
    for name, p in net.params.items():
        if p.diff is not None and p.trainable and not bool(isfinite(p.diff).all()):
            return f"the diff of parameter {name!r}"
    return None
