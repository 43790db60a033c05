"""Summary: the table that a net prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerkit.net import Net

HEADS = ("layer", "type", "bottoms -> tops", "shapes", "parameters")


def summarise(net: Net) -> str:
    """Make the table: layer, type, bottoms -> tops, shapes of the tops, number of parameters."""
    rows: list[tuple[str, ...]] = [HEADS]
    for layer in net.layers.values():
        shapes = (", ".join(map(str, net.blobs[t].shape)) for t in layer.tops)
        count = sum(p.size for p in layer.parameters.values())
        rows.append(
            (
                layer.name,
                type(layer).__name__,
                f"{', '.join(layer.bottoms)} -> {', '.join(layer.tops)}".strip(),
                ", ".join(f"({shape})" for shape in shapes),
                f"{count:,}" if layer.parameters else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    count = sum(p.size for x in net.layers.values() for p in x.parameters.values())
    lines.append(
        f"{count:,} parameters, {net.dtype} on {net.backend.name}, "
        f"up to {net.run.batch_size} examples in a pass"
    )
    return "\n".join(lines)
