"""Kernels: functions that Numba compiles the first time a net is built on the NumPy backend.

A layer's array code is its specification; a kernel does the same in one pass.  Kernels sit below
the array code in the same file:

    @kernel
    def _scale_rows(i, x, y):            # one chunk of the work
        ...

    @kernel
    def scale(team, x, y):               # called by the layer's `forward_kernel`
        parallel_for(team, _scale_rows, len(x), (x, y))

Until `compile_all` has run they are plain Python functions and can be stepped through; Numba, which
takes half a second to import, is not touched before then.  Compiled code is cached beside the file,
or in the user's cache folder where that is read-only, until that file or one in this folder
changes.  So a kernel may call kernels of its own file and of this folder, and no others.

What a kernel may call besides NumPy's and math's functions: other kernels, `parallel_for`, `gemm`
and `call_update`, whose Python versions below say what they do.
"""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Callable
from typing import Any

from layerkit.backends.base import Array

_registered: dict[Callable[..., Any], tuple[str, dict[str, Any]]] = {}
_compiled: dict[Callable[..., Any], Any] = {}
_numba: bool | None = None  # whether it could be imported, once that has been tried


def kernel(function: Any = None, **options: Any) -> Any:
    """Marks a function for compilation; `options` are for numba.njit (fastmath, inline)."""
    if function is None:
        return lambda f: kernel(f, **options)
    _registered[function] = ("njit", options)
    return function


def update_kernel(function: Any) -> Any:
    """Marks a solver's update for compilation to a C function, for `call_update`.

    It takes (size, w, g, first, second, constants): a length, the addresses of four arrays of that
    length (the parameters, their gradient and the solver's histories), and of eight float64
    constants; `view` makes arrays of them.  Once compiled, calling it with a dtype gives its
    address.
    """
    _registered[function] = ("update", {})
    return function


# What a kernel can call: these Python versions are the specification.


def parallel_for(
    team: Array, function: Callable[..., None], count: int, arguments: tuple[Any, ...]
) -> None:
    """function(i, *arguments) for every i < count, shared among the threads of the team.

    Which thread does which i is left to chance, so each i must write to places of its own.
    """
    for i in range(count):
        function(i, *arguments)


def gemm(team: Array, a: Array, b: Array, out: Array, add: bool) -> None:
    """out = a @ b, or out += a @ b, on this thread alone; see tiles.py.

    Each of `a` and `b` may be a transposed view; `out` has rows of neighbouring elements.
    """
    out[...] = a @ b + (out if add else 0)


def call_update(
    address: int, w: Array, g: Array, first: Array, second: Array, constants: Array
) -> None:
    """A solver's update of flat arrays, by the address of the compiled function."""
    raise NotImplementedError("addresses are of compiled functions")


def view(address: Any, size: int) -> Array:
    """The array of `size` elements at an address."""
    raise NotImplementedError("addresses are of compiled functions")


def exp(x: float) -> float:
    """e^x in the precision of x, without branches, so that loops over it vectorise."""
    return math.exp(x)


def log(x: float) -> float:
    """The natural logarithm in the precision of x, likewise."""
    return math.log(x)


def log_product(a: float, b: float, c: float, d: float) -> float:
    """log(a) + log(b) + log(c) + log(d) in little more time than one of them, likewise.

    Of numbers that are at least 2^-126, infinite or not a number.
    """
    return math.log(a) + math.log(b) + math.log(c) + math.log(d)


def compile_all() -> bool:
    """Replaces every kernel in every module by its compiled version; False without Numba.

    Where Numba is missing, broken or turned off, a warning says so, once.

    Compilation itself happens when a kernel is first called with arguments of some type.
    """
    global _numba
    if _numba is None:
        try:
            import numba

            if getattr(numba.config, "DISABLE_JIT", False):
                raise ImportError("the environment variable NUMBA_DISABLE_JIT is set")
            from layerkit.backends import native
        except Exception as error:  # not only ImportError: versions that do not fit fail variously
            _numba = False
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            warnings.warn(
                f"nets run on array code, several times slower, as Numba cannot be used ({reason})",
                RuntimeWarning, stacklevel=3,
            )
        else:
            _numba = True
            for f in (parallel_for, gemm, call_update, view):
                _compiled[f] = getattr(native, f.__name__)
    pending = _registered.keys() - _compiled.keys()
    if _numba and pending:
        from layerkit.backends import native

        for function in pending:
            kind, options = _registered[function]
            _compiled[function] = getattr(native, kind)(function, options)
        scopes = [vars(m) for name, m in sys.modules.items() if name.split(".")[0] == "layerkit"]
        scopes += [f.__globals__ for f in pending]
        for scope in scopes:
            if scope is not globals() and scope is not vars(native):
                for name, value in scope.items():
                    if inspect.isfunction(value) and value in _compiled:
                        scope[name] = _compiled[value]
    return _numba
