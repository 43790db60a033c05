"""Builds the compiled engine for CPUs; the metadata is in pyproject.toml."""

import os
import sys
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import find_packages, setup

FOLDER = Path("layerkit/engines/cpu")
# Of -ffast-math only what keeps NaN and infinities, and the order of sums.
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"]
# Such as sanitizers, for compiler and linker; CFLAGS do not reach C++ in every setuptools.
MORE = os.environ.get("LAYERKIT_BUILD_FLAGS", "").split()

engine = Pybind11Extension(
    "layerkit.engines.cpu._cpu",
    sorted(str(path) for path in FOLDER.rglob("*.cpp")),
    depends=sorted(str(path) for path in FOLDER.parent.rglob("*.[hi]*")),
    cxx_std=17,
    extra_compile_args=[*([] if sys.platform == "win32" else FLAGS), *MORE],
    extra_link_args=MORE,
    optional=True,  # without a compiler, nets run on array code
)

ParallelCompile("LAYERKIT_BUILD_JOBS", default=2).install()
setup(
    ext_modules=[engine],
    cmdclass={"build_ext": build_ext},
    # Net files are no modules of the package, but come with it, to be called by name.
    packages=[*find_packages(include=["layerkit*"]), "layerkit.nets"],
    package_dir={"layerkit.nets": "nets"},
)
