import numpy as np
import pytest

from omni_jax.evals.bootstrap import interval
from omni_jax.evals.entries import mean_entry, ratio_entry, skipped


def mean_of(values):
    return lambda index: float(values[index].mean())


def test_interval_covers_the_true_mean_at_about_its_level():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        values = rng.normal(3.0, 1.0, 60)
        low, high = interval(mean_of(values), {"example": range(60)}, 300, trial)
        covered += low <= 3.0 <= high
    assert 88 <= covered <= 99


def test_examples_of_one_cluster_count_once():
    """Ten copies of each picture add no information: the interval is that of the pictures, not of the copies."""
    pictures = np.random.default_rng(1).integers(0, 2, 20).astype(float)
    copies = np.repeat(pictures, 10)
    names = np.repeat(np.arange(20), 10).tolist()
    alone = interval(mean_of(pictures), {"picture": range(20)}, 2000, 0)
    clustered = interval(mean_of(copies), {"picture": names}, 2000, 0)
    naive = interval(mean_of(copies), {"example": range(200)}, 2000, 0)
    assert clustered == pytest.approx(alone, abs=0.03)
    assert naive[1] - naive[0] < 0.5 * (clustered[1] - clustered[0])


def test_the_widest_factor_is_reported_and_few_levels_are_not_resampled():
    values = np.repeat([0.0, 1.0] * 5, 10)
    voices = np.repeat(np.arange(10), 10).tolist()
    both = interval(mean_of(values), {"question": range(100), "voice": voices}, 2000, 0)
    voice = interval(mean_of(values), {"voice": voices}, 2000, 0)
    assert both[1] - both[0] == pytest.approx(voice[1] - voice[0], abs=0.05)
    two_voices = interval(mean_of(values), {"voice": [0, 1] * 50}, 2000, 0)
    assert two_voices == pytest.approx(interval(mean_of(values), {"e": range(100)}, 2000, 0), abs=0.02)


def test_factors_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match=r"lengths \[2, 3\]"):
        interval(mean_of(np.zeros(3)), {"a": [1, 2, 3], "b": [1, 2]}, 10, 0)


def test_entry_has_all_keys_and_no_nan():
    keys = mean_entry("share", [1.0, 0.0, 1.0, 1.0], {"voice": [0, 1, 2, 3]}, floor=0.5, ceiling=1.0)
    assert set(keys) == {"share", "share_num_examples", "share_ci", "share_floor", "share_ceiling"}
    assert keys["share"] == 0.75 and keys["share_num_examples"] == 4
    low, high = keys["share_ci"]
    assert 0.0 <= low < 0.75 < high <= 1.0
    empty = mean_entry("share", [], {"voice": []}, floor=None)
    assert empty == {"share": None, "share_num_examples": 0, "share_ci": [None, None], "share_floor": None}


def test_ratio_entry_divides_sums_not_means():
    keys = ratio_entry("rate", ([1, 0], [1, 9]), {"voice": [0, 1]}, floor=1.0)
    assert keys["rate"] == pytest.approx(0.1)


def test_skipped_says_why():
    assert skipped("rate", "not installed")["rate_skipped"] == "not installed"
    assert skipped("rate", "not installed")["rate"] is None


def test_a_share_of_none_or_all_is_not_certain():
    """0 of 96 is compatible with 3.8 % (Clopper and Pearson, 1934)."""
    names = {"voice": list(range(96))}
    assert mean_entry("share", [0.0] * 96, names, floor=None)["share_ci"] == pytest.approx([0.0, 0.0377], abs=1e-4)
    assert mean_entry("share", [True] * 96, names, floor=None)["share_ci"] == pytest.approx([0.9623, 1.0], abs=1e-4)
    assert mean_entry("share", [2.0] * 96, names, floor=None)["share_ci"] == [2.0, 2.0]
