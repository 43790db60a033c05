"""CUDA sources -> shared libraries of the host, by g++, and their kernels.

A source is preprocessed alone, so that macros which make kernels are seen through, and compiled
behind `cuda_host.h`.  Libraries are kept in a folder of temporary files under a hash of all that
they depend on.
"""

from __future__ import annotations

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
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT = 7 * 24 * 3600  # seconds
CHECKS = "thread,bounds-strict,alignment,signed-integer-overflow,integer-divide-by-zero"
FLAGS = (
    "-O1", "-g1", "-std=c++17", "-nostdinc", "-fPIC", "-fno-builtin", "-fno-exceptions",
    "-fno-rtti", "-fno-strict-aliasing", "-Werror=vla", f"-fsanitize={CHECKS}",
)
RUNTIME_FLAGS = ("-O2", "-std=c++17", "-fPIC", "-U_FORTIFY_SOURCE", "-fno-stack-protector")
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(\w+)\s*\(')


class CompileError(Exception):
    """The source is no CUDA; the message is the compiler's."""


class Parameter(ctypes.Structure):
    """A kernel's parameter: see cuda_host.h."""

    kind: bytes
    constant: int
    element: int
    size: int
    _fields_ = (
        ("kind", ctypes.c_char), ("constant", ctypes.c_byte), ("element", ctypes.c_short),
        ("size", ctypes.c_short),
    )

    def __str__(self) -> str:
        base = {b"i": "int", b"u": "unsigned", b"f": "float", b"b": "bool"}[self.kind]
        text = f"{8 * (self.element or self.size)}-bit {base}{' *' * bool(self.element)}"
        return f"{'const ' * self.constant}{text}"


@dataclass(frozen=True)
class Kernel:
    """A kernel in a library: its address, as `void (void** values)`, and its parameters."""

    name: str
    address: int
    parameters: list[Parameter]
    module: Module


class Module:
    """The kernels of a source.

    Attributes:
        path: of the library.
        shared: where the shared memory of all its kernels begins and ends.
        kernels: name -> Kernel.
    """

    def __init__(self, code: str, options: tuple[str, ...]):
        library_of_runtime()
        text = _preprocess(code, options)
        names = KERNEL.findall(text)
        wrapped = "\n".join(f"CUDA_HOST_KERNEL({name})" for name in names)
        # In a namespace without a name nothing is shared with other modules, templates included.
        source = f'#include "{HERE / "cuda_host.h"}"\nnamespace {{\n{text}\n}}\n{wrapped}\n'
        self.path = _build(source, FLAGS, (HERE / "cuda_host.h").read_text(encoding="utf-8"))
        library = ctypes.CDLL(str(self.path))
        begin, end = ctypes.c_void_p(), ctypes.c_void_p()
        library.cuda_host_shared(ctypes.byref(begin), ctypes.byref(end))
        self.shared = begin.value or 0, end.value or 0
        self.kernels = {}
        for name in names:
            found = (Parameter * 64)()
            count = library[f"cuda_host_list_{name}"](found)
            address = ctypes.cast(library[f"cuda_host_run_{name}"], ctypes.c_void_p).value or 0
            self.kernels[name] = Kernel(name, address, found[:count], self)

    def line(self, instruction: int) -> str:
        """", line 7" for an instruction's place in the library, or "" where that is not known."""
        tool = shutil.which("addr2line")
        if instruction < 0 or not tool:
            return ""
        command = [tool, "-e", str(self.path), hex(instruction)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        number = re.search(r":(\d+)", done.stdout)
        return f", line {number[1]}" if number else ""


module = functools.cache(Module)


def compiler() -> str | None:
    """The host's C++ compiler, or None: without it there is no testing of CUDA code on the host."""
    return shutil.which("g++") if platform.system() == "Linux" else None


@functools.cache
def library_of_runtime() -> ctypes.CDLL:
    """The library of runtime.cpp, in which kernels find what they call."""
    source = (HERE / "runtime.cpp").read_text(encoding="utf-8")
    library = ctypes.CDLL(str(_build(source, RUNTIME_FLAGS)), mode=ctypes.RTLD_GLOBAL)
    library.cuda_host_launch.restype = ctypes.c_char_p
    return library


def _preprocess(code: str, options: tuple[str, ...]) -> str:
    macros = [option for option in options if option.startswith(("-D", "-U"))]
    for option in options:
        if option not in macros and not option.startswith("-std="):
            raise CompileError(f"nvrtc: error: unrecognized option {option}")
    macros += ["-D__CUDACC__", "-D__CUDACC_RTC__", "-D__CUDA_ARCH__=800"]
    text = _run(["-E", "-x", "c++", "-nostdinc", *macros, "-"], f'#line 1 "kernel.cu"\n{code}')
    return re.sub(r'^# (\d+) ("[^<"]*").*$', r"#line \1 \2", text, flags=re.M)


def _run(arguments: list[str], source: str = "") -> str:
    """What g++ says on standard output."""
    done = subprocess.run(
        [compiler() or "g++", *arguments], input=source, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CompileError(done.stderr)
    return done.stdout


def _build(source: str, flags: tuple[str, ...], depends: str = "") -> Path:
    """The library made from a source; compiled and linked apart, without sanitizers' libraries."""
    key = "\n".join([source, *flags, depends, _version()])
    path = _folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    if path.exists():
        path.touch()
        return path
    with tempfile.TemporaryDirectory(dir=_folder()) as scratch:
        made, linked = f"{scratch}/made.o", f"{scratch}/made.so"
        _run([*flags, "-x", "c++", "-c", "-", "-o", made], source)
        _run(["-shared", "-Wl,-Bsymbolic", made, "-ldl", "-o", linked])
        os.replace(linked, path)
    return path


@functools.cache
def _version() -> str:
    return _run(["--version"])


@functools.cache
def _folder() -> Path:
    """Where libraries are kept, for a week after their last use."""
    folder = Path(tempfile.gettempdir()) / f"layerkit-cuda-host-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to somebody else")
    for path in folder.glob("*.so"):
        if time.time() - path.stat().st_mtime > KEPT:
            path.unlink(missing_ok=True)
    return folder
