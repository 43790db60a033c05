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
PREDEFINED = (
    "-D__CUDACC__", "-D__CUDACC_RTC__", "-D__CUDA_ARCH__=800", "-D__CUDACC_VER_MAJOR__=12",
)
# Options that NVRTC knows; those that take a macro are passed on, the others change nothing here.
MACROS = ("-D", "-U", "--define-macro=", "--undefine-macro=")
KNOWN = (
    "-std=", "--std=", "-arch=", "--gpu-architecture=", "-use_fast_math", "--use_fast_math",
    "-fmad=", "--fmad=", "-ftz=", "--ftz=", "-prec-div=", "--prec-div=", "-prec-sqrt=",
    "--prec-sqrt=", "-lineinfo", "--generate-line-info", "-G", "-maxrregcount=",
    "--maxrregcount=", "-default-device", "--device-as-default-execution-space", "-w",
    "-extra-device-vectorization", "--extra-device-vectorization",
)
BOUNDS = r"(?:__launch_bounds__\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*)?"
KERNEL = re.compile(r"__global__\s+" + BOUNDS + r"void\s+" + BOUNDS + r"(\w+)\s*\(")
DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__align__\s*\(\s*\w+\s*\)\s*)?([\w\s]*?\w)\s+(\w+)\s*\[\s*\]\s*;"
)


class CompileError(Exception):
    """The source is no CUDA; the message is the compiler's."""


@dataclass(frozen=True)
class Parameter:
    """A kernel's parameter.

    Attributes:
        size: of the value, in bytes.
        element: of what a pointer points to, in bytes; 0 for a value.
        kind: 'i', 'u', 'f', 'b' as in NumPy, in capitals for a vector of these, 'V' for other
            structs, 'v' for void; of the value, or of what is pointed to.
        constant: whether it is a pointer to const.
    """

    size: int
    element: int
    kind: str
    constant: bool

    def __str__(self) -> str:
        names = {"i": "int", "u": "unsigned", "f": "float", "b": "bool"}
        base = names.get(self.kind.lower(), "struct")
        bits = 8 * (self.element or self.size)
        text = "void" if self.kind == "v" else f"{bits}-bit {base}{' vector' * self.kind.isupper()}"
        return f"{'const ' * self.constant}{text}{' *' * bool(self.element)}"


class _CParameter(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_int), ("element", ctypes.c_int), ("kind", ctypes.c_char),
        ("constant", ctypes.c_char),
    )


@dataclass(frozen=True)
class Kernel:
    """A kernel in a library: its address, as `void (void** values)`, and its parameters."""

    name: str
    address: int
    parameters: tuple[Parameter, ...]
    most_threads: int  # by its __launch_bounds__
    module: Module


class Module:
    """The kernels of a source.

    Attributes:
        path: of the library.
        kernels: name or name expression -> Kernel.
        hidden: names of kernels that CUDA would not find by name: they lack extern "C".
        shared: address and size of the static shared memory of all its kernels.
    """

    def __init__(self, code: str, options: tuple[str, ...], expressions: tuple[str, ...]):
        runtime()
        text, found, self.hidden = _prepare(code, options)
        names = {**found, **dict.fromkeys(expressions, 1024)}
        self.path = _build(text, tuple(names))
        library = ctypes.CDLL(str(self.path))
        begin, end = ctypes.c_void_p(), ctypes.c_void_p()
        library.cuda_host_shared(ctypes.byref(begin), ctypes.byref(end))
        self.shared = begin.value or 0, (end.value or 0) - (begin.value or 0)
        self.kernels = {
            name: Kernel(
                name, ctypes.cast(library[f"cuda_host_run_{i}"], ctypes.c_void_p).value or 0,
                _parameters(library[f"cuda_host_parameters_{i}"]), most, self,
            )
            for i, (name, most) in enumerate(names.items())
        }
        self.library = library

    def line(self, instruction: int) -> str:
        """", line 7" for an instruction's place in the library, or "" where that is not known."""
        tool = shutil.which("addr2line")
        if instruction < 0 or not tool:
            return ""
        done = subprocess.run(
            [tool, "-e", str(self.path), hex(instruction)], capture_output=True, text=True,
            check=False,
        )
        number = done.stdout.strip().rpartition(":")[2].split(" ")[0]
        return f", line {number}" if number.isdigit() else ""


def compiler() -> str | None:
    """The host's C++ compiler, or None: without it there is no testing of CUDA code on the host."""
    return shutil.which("g++") if platform.system() == "Linux" else None


@functools.cache
def runtime() -> ctypes.CDLL:
    """The library of runtime.cpp, in which kernels find what they call."""
    source = HERE / "runtime.cpp"
    path = _cached(
        source.read_text(encoding="utf-8"),
        ["-O2", "-std=c++17", "-fPIC", "-U_FORTIFY_SOURCE", "-fno-stack-protector"],
    )
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    library.cuda_host_message.restype = ctypes.c_char_p
    return library


def module(code: str, options: tuple[str, ...], expressions: tuple[str, ...] = ()) -> Module:
    """A source's kernels; the same object for the same source."""
    return _module(code, options, expressions)


_module = functools.lru_cache(maxsize=None)(Module)


def _parameters(describe: ctypes._CFuncPtr) -> tuple[Parameter, ...]:
    room = (_CParameter * 64)()
    count = describe(room, len(room))
    return tuple(
        Parameter(p.size, p.element, p.kind.decode(), p.constant != b"\0") for p in room[:count]
    )


def _prepare(code: str, options: tuple[str, ...]) -> tuple[str, dict[str, int], set[str]]:
    """The preprocessed source, name -> most threads of its kernels, names of hidden kernels."""
    macros = []
    for option in options:
        if option.startswith(MACROS):
            macros.append(re.sub("^--(un)?define-macro=", lambda m: "-U" if m[1] else "-D", option))
        elif not option.startswith(KNOWN):
            raise CompileError(f"nvrtc: error: unrecognized option {option}")
    done = subprocess.run(
        [_compiler(), "-E", "-x", "c++", "-nostdinc", *PREDEFINED, *macros, "-"],
        input=f'#line 1 "kernel.cu"\n{code}', capture_output=True, text=True, check=False,
    )
    if done.returncode:
        raise CompileError(done.stderr)
    text = re.sub(r'^# \d+ "<.*$', "", done.stdout, flags=re.M)
    text = re.sub(r'^# (\d+) (".*?").*$', r"#line \1 \2", text, flags=re.M)
    kernels, hidden, depths = {}, set(), _depths(text)
    for match in KERNEL.finditer(text):
        before = re.sub(r"^#.*$", "", text[: match.start()], flags=re.M).rstrip()
        if re.search(r"template\s*<[^{};]*>\s*(static\s*)?$", before):
            continue
        if not before.endswith('extern "C"') and depths[match.start()][1] == 0:
            hidden.add(match[3])
            continue
        bounds = (match[1] or match[2] or "1024").split(",")[0]
        kernels[match[3]] = _constant(bounds)
    for match in DYNAMIC.finditer(text):
        if depths[match.start()][0] == 0:
            raise NotImplementedError("dynamic shared memory is declared inside of a kernel here")
    text = DYNAMIC.sub(r"\1* const \2 = (\1*)cuda_host_dynamic_shared();", text)
    return text, kernels, hidden


def _constant(bounds: str) -> int:
    """The value of a constant expression."""
    return int(eval(re.sub(r"(?<=\d)[uUlL]+\b", "", bounds), {"__builtins__": {}}))


def _depths(text: str) -> list[tuple[int, int]]:
    """For each character, in how many braces it is, and in how many of extern "C"."""
    depths, stack = [], []
    for i, character in enumerate(text):
        if character == "{":
            stack.append(text[max(0, i - 20) : i].rstrip().endswith('extern "C"'))
        elif character == "}" and stack:
            stack.pop()
        depths.append((len(stack) - sum(stack), sum(stack)))
    return depths


def _build(text: str, names: tuple[str, ...]) -> Path:
    kernels = "\n".join(f"CUDA_HOST_KERNEL({i}, ({name}))" for i, name in enumerate(names))
    # In a namespace without a name nothing is shared with other modules, templates included.
    source = f'#include "{HERE / "cuda_host.h"}"\nnamespace {{\n{text}\n}}\n{kernels}\n'
    flags = [
        "-O1", "-g1", "-std=c++17", "-nostdinc++", "-fPIC", "-fno-exceptions", "-fno-rtti",
        "-fno-strict-aliasing", "-pedantic-errors", "-Werror=vla", f"-fsanitize={CHECKS}",
    ]
    return _cached(source, flags, (HERE / "cuda_host.h").read_text(encoding="utf-8"))


def _cached(source: str, flags: list[str], depends: str = "") -> Path:
    """The library made from a source; compiled and linked apart, without sanitizers' libraries."""
    key = "\n".join([source, *flags, depends, _version()])
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    path = _folder() / f"{name}.so"
    if path.exists():
        path.touch()
        return path
    with tempfile.TemporaryDirectory(dir=_folder()) as scratch:
        made, linked = Path(scratch) / "made.o", Path(scratch) / "made.so"
        for command in (
            [*flags, "-x", "c++", "-c", "-", "-o", str(made)],
            ["-shared", "-Wl,-Bsymbolic", str(made), "-ldl", "-o", str(linked)],
        ):
            done = subprocess.run(
                [_compiler(), *command], input=source, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise CompileError(done.stderr)
        os.replace(linked, path)
    return path


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


def _compiler() -> str:
    found = compiler()
    if not found:
        raise RuntimeError("CUDA code is tested on the host by g++ on Linux, which is not there")
    return found


@functools.cache
def _version() -> str:
    done = subprocess.run([_compiler(), "--version"], capture_output=True, text=True, check=True)
    return done.stdout


