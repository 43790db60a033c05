"""One version: the package's own, which the metadata and the citation repeat."""

import importlib.metadata
import re
from pathlib import Path

import layerkit as lk

ROOT = Path(__file__).resolve().parents[2]


def test_one_version():
    assert importlib.metadata.version("layerkit") == lk.__version__
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == lk.__version__
