"""Methods of a net and of its solvers: what all those have in common that a caller may call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from layerkit.errors import NetError, brief
from layerkit.settings.names import quoted

# Training that diverges overflows somewhere; the solver says where, in words.  NumPy need not.
QUIET = np.errstate(all="ignore")

Method = TypeVar("Method", bound=Callable[..., Any])


def flushing(method: Method) -> Method:
    """Make a method of a net run with denormal numbers counted as zero, if the engine does so."""

    @functools.wraps(method)
    def run(self: Any, /, *args: Any, **settings: Any) -> Any:
        with self.engine.flushed():
            return method(self, *args, **settings)

    return run  # type: ignore[return-value]


def serialised(method: Method) -> Method:
    """Let one thread at a time run such methods, of a net and of all that share its `lock`.

    A call that does not fit the method is an error that says what the net takes.
    """
    signature = inspect.signature(method)
    by_place = [p for p in signature.parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
    needed = [p for p in by_place[1:] if p.default is p.empty]
    by_name = any(p.kind == p.VAR_KEYWORD for p in signature.parameters.values())

    @functools.wraps(method)
    def run(self: Any, /, *args: Any, **settings: Any) -> Any:
        if len(args) != len(needed) or (settings and not by_name):  # few calls, and wrong ones
            try:
                signature.bind(self, *args, **settings)
            except TypeError:
                raise NetError(_misused(self, method, args, settings)) from None
        with self.lock:
            return method(self, *args, **settings)

    return run  # type: ignore[return-value]


def _misused(
    self: Any, method: Callable[..., Any], args: tuple[Any, ...], settings: dict[str, Any]
) -> str:
    """Return a message on a call that does not fit a method of a net or of one of its solvers."""
    name, net = method.__name__, getattr(self, "net", self)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    usage = [str(p.replace(annotation=p.empty)) for p in parameters if p.kind != p.VAR_KEYWORD]
    inputs = net.input_names()
    came = ", ".join(
        [*map(brief, args), *(f"{key}={brief(value)}" for key, value in settings.items())]
    )
    last = parameters[-1] if parameters else None
    if last is None or last.kind != last.VAR_KEYWORD:
        hint = "arrays are given to forward, or come from data layers (layerkit.with_data); "
        if any(p.name == "data" for p in parameters):
            by_name = ", ".join(f"{i!r}: array" for i in inputs)
            hint = f"arrays are given as {name}({{{by_name}}}); "
        hint += f"this net's inputs are {quoted(inputs)}"
    elif last.name == "changes":
        usage, hint = ["batch_size=..."], "settings of Net are given by name"
    else:
        names = [list(net.blobs)[-1]] if last.name == "diffs" else inputs
        usage += [f"{i}=array" for i in names]
        hint = f"arrays are given by name; this net's inputs are {quoted(inputs)}"
    return f"{name}: expected {name}({', '.join(usage)}), got {came or 'nothing'}; {hint}"
