"""Random net files and command lines; see tests/fuzz/nets.py and tests/fuzz/commands.py."""

import sys

import pytest

from fuzz.harness import failures


def test_random_net_files():
    report, ends = failures("nets", 200, seconds=200)
    assert not report, report
    for outcome in ("odd but fine", "refused"):
        assert ends[outcome] > 0.03 * (ends["odd but fine"] + ends["refused"])


@pytest.mark.skipif(sys.platform == "win32", reason="command lines run in forks")
def test_random_command_lines():
    report, ends = failures("commands", 24, seconds=400)
    assert not report, report
    # Among those that run are all that are plain, which must get as far as the evaluation.
    assert ends["odd but fine"] > 0
    assert ends["refused"] > 0
