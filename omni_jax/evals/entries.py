"""One metric's keys in report.json: the value, `_num_examples`, `_ci`, `_floor` and, where one exists, `_ceiling`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omni_jax.evals.bootstrap import Statistic, interval

NUM_RESAMPLES = 1000


def entry(
    name: str,
    statistic: Statistic,
    factors: Mapping[str, Sequence[object]],
    *,
    floor: float | None,
    ceiling: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The metric's flat keys. `statistic` maps example indices to the value; `factors` as in `bootstrap.interval`.

    A value that cannot be computed (no examples) is None, never NaN: JSON has no NaN.
    """
    num_examples = len(next(iter(factors.values())))
    value = statistic(np.arange(num_examples)) if num_examples else float("nan")
    low, high = interval(statistic, factors, NUM_RESAMPLES, seed)
    keys: dict[str, Any] = {
        name: finite(value),
        f"{name}_num_examples": num_examples,
        f"{name}_ci": [finite(low), finite(high)],
        f"{name}_floor": finite(floor),
    }
    if ceiling is not None:
        keys[f"{name}_ceiling"] = finite(ceiling)
    return keys


def mean_entry(
    name: str,
    values: Sequence[float],
    factors: Mapping[str, Sequence[object]],
    *,
    floor: float | None,
    ceiling: float | None = None,
) -> dict[str, Any]:
    """`entry` of the mean of one value an example.

    A share of 0 or 1 would have an interval without width, whatever is drawn: there it is that of Clopper and Pearson,
    who take the examples as independent, so it is rather too narrow.
    """
    array = np.asarray(values, np.float64)
    keys = entry(name, lambda index: float(array[index].mean()), factors, floor=floor, ceiling=ceiling)
    if len(array) and (not array.any() or (array == 1).all()):
        reach = 1 - (0.05 / 2) ** (1 / len(array))
        keys[f"{name}_ci"] = [1 - reach, 1.0] if array[0] else [0.0, reach]
    return keys


def ratio_entry(
    name: str,
    parts: tuple[Sequence[float], Sequence[float]],
    factors: Mapping[str, Sequence[object]],
    *,
    floor: float | None,
    ceiling: float | None = None,
) -> dict[str, Any]:
    """`entry` of a ratio of sums, such as errors over words; `parts` = (numerators, denominators) an example."""
    above, below = (np.asarray(part, np.float64) for part in parts)

    def ratio(index: np.ndarray) -> float:
        total = below[index].sum()
        return float(above[index].sum() / total) if total else float("nan")

    return entry(name, ratio, factors, floor=floor, ceiling=ceiling)


def skipped(name: str, reason: str) -> dict[str, Any]:
    """The keys of a metric that could not be measured here; `<name>_skipped` says why."""
    return {name: None, f"{name}_num_examples": 0, f"{name}_ci": [None, None], f"{name}_floor": None} | {
        f"{name}_skipped": reason
    }


def finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
