"""Hundreds of damaged pictures: each counted, none fatal; see tests/fuzz/pictures.py."""

from fuzz.harness import failures


def test_damaged_pictures():
    report, ends = failures("pictures", 12, seconds=300)
    assert not report, report
    assert ends["odd but fine"] > 0.7 * (ends["odd but fine"] + ends["refused"])
    assert ends["megabytes"] < 2500  # a library that is asked for a picture's size may take some
