"""The table of results: what it shows is what the metrics hold."""

import contextlib
import functools
import json

import pytest

from layerkit import galaxy
from layerkit.errors import DataError

METRICS = {
    "galaxies": "abc",
    "net": "galaxy_gdae.py",
    "net_settings": {"hidden": 32, "latent": 4},
    "seed": 7,
    "train": 8434,
    "held_out": 1000,
    "held_out_elbo": 11447.06,
    "held_out_kl": 31.96,
    "held_out_iwae": 11484.9,
    "mse_wins": 997,
    "likelihood_wins": 988,
    "sersic_mse_wins": 793,
    "sersic_likelihood_wins": 897,
    "pca_mse_wins": 839,
    "coverage_1sd": 0.7563,
    "coverage_1sd_worst_quintile": 0.8125,
    "coverage_2sd": 0.9623,
    "coverage_2sd_worst_quintile": 0.9664,
    "bound_gap_percent": 0.527,
    "seconds": 118.6,
    "encoded_held_out_elbo": 11300.0,
    "closest_pca_mse_wins": 901,
    "command": "python example.py --set 'a|b'",
}


def cells(row):
    return [cell.strip() for cell in row.replace("\\|", "?").strip("|").split("|")]


def test_a_row_is_made_of_the_metrics(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    assert galaxy.read_metrics(tmp_path) == galaxy.read_metrics(tmp_path / "metrics.json")
    header, line, row = galaxy.results_table([galaxy.read_metrics(tmp_path)]).splitlines()
    shown = dict(zip(cells(header), cells(row), strict=True))
    assert len(cells(line)) == len(shown)
    assert shown == {
        "net": "galaxy_gdae.py hidden=32 latent=4",
        "seed": "7",
        "trained on": "8,434",
        "held out": "1,000",
        "ELBO of g": "11,300.0",
        "ELBO": "11,447.1",
        "IWAE": "11,484.9",
        "KL": "32.0",
        "Gaussian, squared error": "997 (99.7%)",
        "Gaussian, likelihood": "988 (98.8%)",
        "Sersic, squared error": "793 (79.3%)",
        "Sersic, likelihood": "897 (89.7%)",
        "PCA, squared error": "839 (83.9%)",
        "PCA, closest": "901 (90.1%)",
        "within 1 sd (worst fifth)": "75.6% (81.2%)",
        "within 2 sd (worst fifth)": "96.2% (96.6%)",
        "gap, %": "0.53",
        "minutes": "2.0",
        "command": "`python example.py --set 'a?b'`",
    }


def test_what_was_not_measured_is_a_dash_and_other_galaxies_are_marked():
    old = {k: v for k, v in METRICS.items() if "sersic" not in k and "coverage" not in k}
    *_, first, second = galaxy.results_table([METRICS, old | {"galaxies": "d"}]).splitlines()
    assert "1,000 *" not in first
    assert "1,000 *" in second
    assert cells(second).count("\N{EM DASH}") == 4


def test_runs_that_lack_everything_are_dashes_and_other_kinds_are_refused():
    *_, row = galaxy.results_table([{"held_out": 10}]).splitlines()
    assert cells(row).count("\N{EM DASH}") == len(cells(row)) - 1
    for bad in (
        {"held_out": 0},
        {"held_out": "ten"},
        {"seed": 1.5},
        {"net_settings": [1]},
        {"seconds": "1"},
        {"mse_wins": {}},
    ):
        with pytest.raises(DataError, match="another type than a run writes"):
            galaxy.results_table([METRICS, METRICS | bad])


@pytest.mark.parametrize("value", [None, "x", [1], {"a": 1}])
@pytest.mark.parametrize("key", [*METRICS])
def test_values_of_another_type_are_dashes_or_refused_in_words(key, value, tmp_path):
    """A number that was not finite, say, is null in the file."""
    bad = METRICS | {key: value}
    write = functools.partial(galaxy.write_report, tmp_path / "report.html")
    for show in (galaxy.summary, lambda metrics: galaxy.results_table([metrics]), write):
        with contextlib.suppress(DataError):
            show(bad)


def test_summaries_say_what_is_missing():
    with pytest.raises(DataError, match=r"summary: not the metrics of a whole run .*iwae_samples"):
        galaxy.summary({k: v for k, v in METRICS.items() if k != "iwae_samples"})


def test_values_that_hold_themselves_are_refused(tmp_path):
    values = []
    values.append(values)
    with pytest.raises(DataError, match=r"m\.json: .* hold themselves"):
        galaxy.write_json(tmp_path / "m.json", {"a": values})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", "[" * 100_000])
def test_files_without_metrics_are_refused(text, tmp_path):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(DataError, match=r"metrics\.json"):
        galaxy.read_metrics(tmp_path)
