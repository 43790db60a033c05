"""Philox against its published answers, a big-integer version, and statistics."""

import math

import numpy as np
import pytest
from scipy import stats

from layerkit.backends import philox

UNLIKELY = 1e-6  # a p-value below this is taken for a fault; a correct generator all but never is


# From the known-answer file of Random123, the authors' own library.
@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers(counter, key, answer):
    words = tuple(np.array([c], np.uint64) for c in counter)
    assert tuple(int(w[0]) for w in philox.philox4x32(np, words, key)) == answer


def by_big_integers(counter, key):
    """Philox4x32-10 as the paper defines it, one block, in Python's own integers."""
    left, right = (counter[0], counter[1]), (counter[2], counter[3])
    for r in range(10):
        keys = [(k + r * w) % 2**32 for k, w in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True)]
        high0, low0 = divmod(0xD2511F53 * left[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * right[0], 2**32)
        left, right = (high1 ^ left[1] ^ keys[0], low1), (high0 ^ right[1] ^ keys[1], low0)
    return (*left, *right)


def test_agrees_with_big_integers(rng):
    counters = rng.integers(0, 2**32, (4, 300), dtype=np.uint64)
    key = tuple(int(k) for k in rng.integers(0, 2**32, 2))
    out = np.stack(philox.philox4x32(np, tuple(counters), key))
    for i in range(counters.shape[1]):
        expected = by_big_integers([int(c) for c in counters[:, i]], key)
        assert tuple(int(w) for w in out[:, i]) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 41])
def test_bits_are_keyed_by_seed_and_counted_by_block_stream_and_step(rng, count):
    seed, step = (int(n) for n in rng.integers(0, 2**63, 2))
    stream = int(rng.integers(0, 2**32))
    expected = [
        word
        for block in range(-(-count // 4))
        for word in by_big_integers(
            (block, stream, step % 2**32, step >> 32), (seed % 2**32, seed >> 32)
        )
    ]
    assert philox.bits(np, count, seed, stream, step).tolist() == expected[:count]


def test_a_longer_draw_begins_with_the_shorter(rng):
    seed = int(rng.integers(0, 2**32))
    for draw in (philox.uniform, philox.normal):
        whole = draw(np, (7, 3), seed, 1, 2)
        assert whole.dtype == np.float64
        np.testing.assert_array_equal(draw(np, (11,), seed, 1, 2), whole.reshape(-1)[:11])


def test_a_stream_is_the_same_in_every_process():
    assert philox.stream_of("123456789") == 0xCBF43926  # the check value of CRC-32


def test_uniform_numbers_are_uniform(rng):
    u = philox.uniform(np, (40_000,), int(rng.integers(0, 2**63)), 3, 5)
    assert stats.kstest(u, "uniform").pvalue > UNLIKELY
    # Each of the four words of a block, and neighbours jointly.
    for word in range(4):
        assert stats.kstest(u[word::4], "uniform").pvalue > UNLIKELY
    cells = np.histogram2d(u[::2], u[1::2], bins=8, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(cells.reshape(-1)).pvalue > UNLIKELY


def test_normal_numbers_are_normal(rng):
    z = philox.normal(np, (40_000,), int(rng.integers(0, 2**63)), 3, 5)
    assert stats.kstest(z, "norm").pvalue > UNLIKELY
    for half in (z[::2], z[1::2]):  # the cosines and the sines of Box and Muller
        assert stats.kstest(half, "norm").pvalue > UNLIKELY
    n = len(z)
    # Mean and variance of the sample mean, variance, third and fourth moments of a standard normal.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        score = (np.mean(z**power) - mean) / math.sqrt(variance / n)
        assert 2 * stats.norm.sf(abs(score)) > UNLIKELY, f"moment {power} is off by {score} sd"


def correlation_p(a, b):
    return stats.pearsonr(a.reshape(-1), b.reshape(-1)).pvalue


def test_neighbours_streams_steps_and_seeds_are_independent(rng):
    seed, stream, step = (int(n) for n in rng.integers(0, 2**31, 3))
    z = philox.normal(np, (20_000,), seed, stream, step)
    others = {
        "stream": philox.normal(np, z.shape, seed, stream + 1, step),
        "step": philox.normal(np, z.shape, seed, stream, step + 1),
        "far step": philox.normal(np, z.shape, seed, stream, step + 2**32),
        "seed": philox.normal(np, z.shape, seed + 1, stream, step),
        "far seed": philox.normal(np, z.shape, seed + 2**32, stream, step),
    }
    for name, other in others.items():
        assert correlation_p(z, other) > UNLIKELY, name
        assert correlation_p(z**2, other**2) > UNLIKELY, name
    for lag in (1, 2, 3, 4):
        assert correlation_p(z[:-lag], z[lag:]) > UNLIKELY, f"lag {lag}"
        assert correlation_p(z[:-lag] ** 2, z[lag:] ** 2) > UNLIKELY, f"lag {lag}"


def test_the_extremes_stay_inside_the_open_interval(monkeypatch):
    extremes = np.array([0, 0, 2**32 - 1, 2**32 - 1, 0, 2**32 - 1, 2**32 - 1, 0], np.uint64)
    monkeypatch.setattr(philox, "bits", lambda xp, count, *_: extremes[:count])
    u = philox.uniform(np, (8,), 0, 0, 0)
    assert u.min() > 0
    assert u.max() < 1
    assert np.isfinite(philox.normal(np, (8,), 0, 0, 0)).all()


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_a_permutation_holds_every_number_once(rng, count):
    seed = int(rng.integers(0, 2**32))
    order = philox.permutation(np, count, seed, 1, 2)
    assert order.dtype == np.int64
    assert np.sort(order).tolist() == list(range(count))
    np.testing.assert_array_equal(order, philox.permutation(np, count, seed, 1, 2))
    if count == 1000:
        assert (order != philox.permutation(np, count, seed, 1, 3)).any()


def test_all_permutations_are_equally_likely(rng):
    seed = int(rng.integers(0, 2**32))
    counts = {}
    for step in range(2400):
        order = tuple(philox.permutation(np, 4, seed, 0, step).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == math.factorial(4)
    assert stats.chisquare(list(counts.values())).pvalue > UNLIKELY
