"""CUDA sources -> shared libraries of the host, by g++, and their kernels.

A source is preprocessed alone, so that macros which make kernels are seen through, and compiled
behind `cuda_host.h`.  Libraries are kept beside Python's own compiled files, under a hash of all
that they depend on.
"""

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
KEPT = 7 * 24 * 3600  # seconds
CHECKS = "thread,bounds-strict,alignment,signed-integer-overflow,integer-divide-by-zero"
FLAGS = (
    "-O1",
    "-g1",
    "-std=c++17",
    "-nostdinc",
    "-fPIC",
    "-fno-builtin",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-strict-aliasing",
    "-Werror=vla",
    f"-fsanitize={CHECKS}",
)
RUNTIME_FLAGS = ("-O2", "-std=c++17", "-fPIC", "-U_FORTIFY_SOURCE", "-fno-stack-protector")
MACROS = ("-D__CUDACC__", "-D__CUDACC_RTC__", "-D__CUDA_ARCH__=800")
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(\w+)\s*\(')


class CompileException(Exception):  # noqa: N818  # CuPy's name
    """The source is no CUDA; the message is the compiler's."""


class Parameter(ctypes.Structure):
    """A kernel's parameter: see cuda_host.h."""

    _fields_ = (
        ("kind", ctypes.c_char),
        ("constant", ctypes.c_byte),
        ("element", ctypes.c_short),
        ("size", ctypes.c_short),
    )

    def __str__(self):
        base = {b"i": "int", b"u": "unsigned", b"f": "float", b"b": "bool"}[self.kind]
        text = f"{8 * (self.element or self.size)}-bit {base}{' *' * bool(self.element)}"
        return f"{'const ' * self.constant}{text}"


class Kernel(NamedTuple):
    """A kernel in a library: its address, as `void (void** values)`, and its parameters."""

    name: str
    address: int
    parameters: list
    module: object


class Module:
    """The kernels of a source, in the library at `path`, and where their shared memory lies."""

    def __init__(self, code, options):
        runtime()
        for option in options:
            if not option.startswith(("-D", "-U", "-std=")):
                raise CompileException(f"nvrtc: error: unrecognized option {option}")
        text = _run(
            "-E",
            "-x",
            "c++",
            "-nostdinc",
            *MACROS,
            *options,
            "-",
            source=f'#line 1 "kernel.cu"\n{code}',
        )
        text = re.sub(r'^# (\d+) ("[^<"]*").*$', r"#line \1 \2", text, flags=re.M)
        names = KERNEL.findall(text)
        wrapped = "\n".join(f"CUDA_HOST_KERNEL({name})" for name in names)
        header = (HERE / "cuda_host.h").read_text(encoding="utf-8")
        # In a namespace without a name nothing is shared with other modules, templates included.
        self.path = _build(f"{header}\nnamespace {{\n{text}\n}}\n{wrapped}\n", FLAGS)
        library = ctypes.CDLL(str(self.path))
        begin, end = ctypes.c_void_p(), ctypes.c_void_p()
        library.cuda_host_shared(ctypes.byref(begin), ctypes.byref(end))
        self.shared = begin.value or 0, end.value or 0
        self.kernels = {}
        for name in names:
            found = (Parameter * 64)()
            count = library[f"cuda_host_list_{name}"](found)
            address = ctypes.cast(library[f"cuda_host_run_{name}"], ctypes.c_void_p).value
            self.kernels[name] = Kernel(name, address, found[:count], self)

    def line(self, instruction):
        """Return ", line 7" for an instruction's place in the library, or "" if that is unknown."""
        tool = shutil.which("addr2line")
        if instruction < 0 or not tool:
            return ""
        command = [tool, "-e", str(self.path), hex(instruction)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        number = re.search(r":(\d+)", done.stdout)
        return f", line {number[1]}" if number else ""


module = functools.cache(Module)


def compiler():
    """Return the path of g++, or None: without it CUDA code cannot be tested on the host."""
    return shutil.which("g++") if platform.system() == "Linux" else None


@functools.cache
def runtime():
    """Load the library of runtime.cpp, in which kernels find what they call."""
    source = (HERE / "runtime.cpp").read_text(encoding="utf-8")
    library = ctypes.CDLL(str(_build(source, RUNTIME_FLAGS)), mode=ctypes.RTLD_GLOBAL)
    library.cuda_host_launch.restype = ctypes.c_char_p
    return library


@functools.cache
def _version():
    return _run("--version")


def _run(*arguments, source=""):
    """Run g++ and return its output."""
    done = subprocess.run(
        [compiler(), *arguments], input=source, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CompileException(done.stderr)
    return done.stdout


def _build(source, flags):
    """Make a library from a source; compiled and linked apart, without sanitizers' libraries."""
    folder, key = HERE / "__pycache__", "\n".join([source, *flags, _version()])
    folder.mkdir(exist_ok=True)
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    if path.exists():
        path.touch()
        return path
    for other in folder.glob("*.so"):
        if time.time() - other.stat().st_mtime > KEPT:
            other.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made, linked = f"{scratch}/made.o", f"{scratch}/made.so"
        _run(*flags, "-x", "c++", "-c", "-", "-o", made, source=source)
        _run("-shared", "-Wl,-Bsymbolic", made, "-ldl", "-o", linked)
        os.replace(linked, path)
    return path
