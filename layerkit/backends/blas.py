"""Which BLAS kernels call, and how it is loaded.

The choice: a private copy of OpenBLAS (the wheel scipy-openblas32, which NumPy's and SciPy's own
copies are built from), with one thread, called by its address from inside compiled code.

* NumPy's own copy will not do.  Its threads spin for milliseconds after each call, which starves
  everybody else's, and how many there are and which processor's code they run is a setting of the
  whole program, which a library has no business to change.  A private copy has settings of its own.
* One thread, because layerkit's threads (threads.py) each call it on a piece of the work: a matrix
  product, what is done to it next (bias, activation, a solver's update) and the data in between
  then stay in one core's cache.  That also makes results independent of the number of threads.
* OpenBLAS tells the processor by itself, and falls back to code for older ones.

The variables that OpenBLAS reads while it loads are put back at once.  Where the wheel is missing,
matrix products are NumPy's, and layers that need them inside a kernel run their array code.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from pathlib import Path


@functools.cache
def library() -> ctypes.CDLL | None:
    """The private OpenBLAS, or None where it is not installed or does not load."""
    package = importlib.util.find_spec("scipy_openblas32")
    if package is None or package.origin is None:
        return None
    kept = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        folder = Path(package.origin).parent / "lib"
        for path in sorted(folder.glob("libscipy_openblas*")):
            if path.suffix in (".so", ".dylib", ".dll"):
                return ctypes.CDLL(str(path))
    except OSError:
        pass
    finally:
        if kept is None:
            del os.environ["OPENBLAS_NUM_THREADS"]
        else:
            os.environ["OPENBLAS_NUM_THREADS"] = kept
    return None


def addresses() -> tuple[int, int]:
    """Where cblas_sgemm and cblas_dgemm are, or zeros."""
    found = library()
    if found is None:
        return 0, 0
    names = ("scipy_cblas_sgemm", "scipy_cblas_dgemm")
    single, double = (ctypes.cast(getattr(found, n), ctypes.c_void_p).value or 0 for n in names)
    return single, double


def description() -> str:
    """The BLAS and the processor it is running its code for, in words."""
    found = library()
    if found is None:
        return "NumPy's BLAS"
    name = found.scipy_openblas_get_corename
    name.restype = ctypes.c_char_p
    return f"OpenBLAS, code for {name().decode()}"
