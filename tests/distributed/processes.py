"""Programs run by several processes, for the tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def launcher():
    """Return mpiexec, the one beside this Python before others; skip the test without MPI."""
    pytest.importorskip("mpi4py", reason="MPI is not installed: pip install 'layerkit[mpi]'")
    found = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which(
        "mpiexec"
    )
    if found is None:
        pytest.skip("there is no mpiexec: pip install 'layerkit[mpi]'")
    return found


def run(processes, *command, limit=60, options=()):
    """Run a command of Python in so many processes; return what subprocess.run does."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE.parent)]),
        "PRTE_ALLOW_RUN_AS_ROOT": "1",  # for Open MPI, in a container
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    environment.pop("OMP_NUM_THREADS", None)
    return subprocess.run(
        [launcher(), *options, "-n", str(processes), sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=limit,
        cwd=ROOT,
        env=environment,
        check=False,
    )


def program(processes, name, *arguments, limit=60):
    """Run one of programs.py."""
    return run(processes, HERE / "programs.py", name, *arguments, limit=limit)
