"""95 % intervals by the cluster bootstrap: whole pictures, voices or questions are drawn, not single examples.

Examples that share a picture, a voice or a question fail together, so an interval over single examples is too narrow.
Where examples have several such factors, each factor gives an interval and the widest one is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

MIN_CLUSTERS = 5  # below, resampling a factor says nothing about it
Statistic = Callable[[Int[np.ndarray, " n"]], float]


def interval(
    statistic: Statistic, factors: Mapping[str, Sequence[object]], num_resamples: int, seed: int
) -> tuple[float, float]:
    """Percentile interval (2.5 %, 97.5 %) of `statistic`, which maps example indices (with repeats) to a value.

    Args:
      statistic: for example `lambda index: values[index].mean()`; NaN results are left out.
      factors: name -> the level of each example. Factors with fewer than MIN_CLUSTERS levels are not resampled; if
        none is left, single examples are drawn.
      num_resamples: draws a factor.
      seed: of the draws.

    Returns:
      (low, high); NaN twice without examples.
    """
    sizes = {len(levels) for levels in factors.values()}
    if len(sizes) != 1:
        raise ValueError(f"factors={dict(factors)!r}: want one level an example in each, got lengths {sorted(sizes)}")
    num_examples = sizes.pop()
    if num_examples == 0:
        return float("nan"), float("nan")
    groupings = [members for levels in factors.values() if len(members := _members(levels)) >= MIN_CLUSTERS]
    groupings = groupings or [[np.array([i]) for i in range(num_examples)]]
    rng = np.random.default_rng(seed)
    bounds = [_percentiles(statistic, members, num_resamples, rng) for members in groupings]
    return max(bounds, key=lambda bound: bound[1] - bound[0])


def _members(levels: Sequence[object]) -> list[np.ndarray]:
    groups: dict[object, list[int]] = {}
    for index, level in enumerate(levels):
        groups.setdefault(level, []).append(index)
    return [np.array(group) for group in groups.values()]


def _percentiles(
    statistic: Statistic, members: list[np.ndarray], num_resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    draws = rng.integers(0, len(members), (num_resamples, len(members)))
    values = np.array([statistic(np.concatenate([members[i] for i in draw])) for draw in draws], np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
