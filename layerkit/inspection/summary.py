"""Summary: the table that a net prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerkit.wiring.sharing import own, used

if TYPE_CHECKING:
    from layerkit.net import Net

HEADS = ("layer", "type", "bottoms -> tops", "shapes", "parameters")


def summarise(net: Net) -> str:
    """Make the table: layer, type, bottoms -> tops, shapes of the tops, number of parameters."""
    rows: list[tuple[str, ...]] = [HEADS]
    for layer in net.layers.values():
        shapes = (", ".join(map(str, net.blobs[t].shape)) for t in layer.tops)
        count = sum(p.size for p in own(layer))
        lenders = dict.fromkeys(p.name.rpartition("/")[0] for p in used(layer))
        shown = [f"{count:,}"] if own(layer) else []
        rows.append(
            (
                layer.name,
                type(layer).__name__,
                f"{', '.join(layer.bottoms)} -> {', '.join(layer.tops)}".strip(),
                ", ".join(f"({shape})" for shape in shapes),
                " + ".join([*shown, *(f"those of {name}" for name in lenders)]),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    count = sum(p.size for p in net.params.values())
    lines.append(
        f"{count:,} parameters, {net.dtype} on {net.backend.name}, "
        f"up to {net.run.batch_size} examples in a pass"
    )
    return "\n".join(lines)
