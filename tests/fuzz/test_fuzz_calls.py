"""Thousands of random calls: each is right, or one LayerkitError; see tests/fuzz/calls.py."""

from fuzz.harness import failures


def test_random_nets_and_calls():
    report, ends = failures("calls", 400, seconds=1200)
    assert not report, report
    # A fuzzer that is refused from the first call on, or never, would find nothing.
    total = sum(ends[k] for k in ("fine", "odd but fine", "refused"))
    for outcome in ("fine", "odd but fine", "refused"):
        assert ends[outcome] > 0.05 * total
