"""Nets as ONNX models, for the many programs that run these."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from layerkit.errors import NetError, brief
from layerkit.net import Net
from layerkit.saving.onnx.graph import Graph
from layerkit.saving.onnx.layers import CONVERTERS, converts
from layerkit.saving.onnx.pose import spatial_transform
from layerkit.settings import fitting
from layerkit.settings.names import closest
from layerkit.system.files import path_of, write_atomically

__all__ = ["export_onnx"]

converts("SpatialTransform")(spatial_transform)


@fitting(NetError)
def export_onnx(
    net: Net,
    path: str | os.PathLike[str],
    outputs: str | Sequence[str],
    inputs: str | Sequence[str] | None = None,
) -> None:
    """Write the layers that lead to some blobs as an ONNX model.

        lk.export_onnx(net, "net.onnx", "logits")
        lk.export_onnx(net, "decoder.onnx", ["x_mean", "x_log_variance"], inputs="z")

    The model computes what `net.infer(outputs, sample=False, ...)` does: dropout leaves out
    nothing, sampling layers give the mean, and normalisation takes the running statistics.  Its
    inputs and outputs are called like the blobs, with a batch axis of any length in front, in the
    net's dtype.  Few programs run models in float64.

    Args:
        net: the net.
        path: the file, replaced in one move if it is there.
        outputs: the name of a blob, or a list of names.
        inputs: the blobs that are given; by default those of Input and data layers.

    Raises:
        NetError: a layer that ONNX cannot express, or one of your own, by name; no such blob; the
            package onnx is missing; a file that cannot be written.
    """
    if not isinstance(net, Net):
        raise NetError(f"export_onnx: expected a net, got {brief(net)}")
    path, library = path_of(path, NetError), _library()
    wanted, given = _names("outputs", outputs, net), _names("inputs", inputs or [], net)
    with net.lock:
        model = Graph(net, library, CONVERTERS).model(wanted, given)
    try:
        library.checker.check_model(model)
        content = model.SerializeToString()
    except ValueError as error:  # protobuf takes 2 GiB
        raise NetError(f"export_onnx: the model is too large for one file ({error})") from error
    try:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise NetError(f"export_onnx: cannot write {path}: {error.strerror or error}") from error


def _library() -> Any:
    try:
        import onnx
    except ImportError:
        raise NetError("ONNX models need the package onnx: pip install onnx") from None
    return onnx


def _names(what: str, given: Any, net: Net) -> list[str]:
    """Return names of blobs as a list, once they are found to be such."""
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or (what == "outputs" and not names):
        raise NetError(
            f"export_onnx: {what} must be the name of a blob, or a list, got {brief(given)}"
        )
    for name in names:
        if not isinstance(name, str) or name not in net.blobs:
            raise NetError(f"export_onnx: no blob {brief(name)}; {closest(name, net.blobs)}")
    return list(names)
