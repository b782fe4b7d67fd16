"""The update rule with warmup and cosine decay; frozen parameters stay untouched."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import optax
import optax.contrib

from omni_jax.config import OptimizerConfig
from omni_jax.errors import ConfigError
from omni_jax.nn.low_rank import A

FROZEN = -1  # in place of the step from which a parameter is trained


def learning_rate_schedule(cfg: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warmup, then cosine decay to `final_fraction` at the last step."""
    warmup = min(cfg.warmup_steps, steps // 2)
    return optax.warmup_cosine_decay_schedule(
        init_value=cfg.learning_rate / (warmup + 1),
        peak_value=cfg.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, 1),
        end_value=cfg.learning_rate * cfg.final_fraction,
    )


def make_optimizer(
    cfg: OptimizerConfig, steps: int, decay_mask: Any, first_steps: Any, matrices: Any = None
) -> optax.GradientTransformation:
    """`cfg.name` on the trained parameters: AdamW (arXiv 1711.05101), Adafactor (1804.04235) or Muon (2502.16982).

    Parameters that are trained from a later step on have a warmup and a clipped norm of their own.

    Args:
        decay_mask: True at the leaves that weight decay pulls to zero (matrices, not norms, biases or embeddings).
        first_steps: the step from which a leaf is trained; those that are FROZEN have no moments.
        matrices: for Muon, `optax.contrib.MuonDimensionNumbers` at the leaves that it orthogonalises, None at those
            that Adam updates.
    """
    rules = {}
    for first in set(jax.tree.leaves(first_steps)) - {FROZEN}:
        if first >= max(steps, 1):
            raise ConfigError(f"training.trainable has @{first}, training.steps={steps}: want an earlier step")
        decayed = jax.tree.map(lambda decay, here, first=first: decay and here == first, decay_mask, first_steps)
        rule = optax.chain(optax.clip_by_global_norm(cfg.clip_norm), update_rule(cfg, steps - first, decayed, matrices))
        rules[_label(first)] = rule if first == 0 else _from_step(first, rule)
    return optax.partition(rules | {_label(FROZEN): optax.set_to_zero()}, jax.tree.map(_label, first_steps))


def _from_step(first: int, rule: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.conditionally_mask(rule, lambda step: step >= first)


def _label(first: int) -> str:
    return {FROZEN: "frozen", 0: "trainable"}.get(first, f"from_{first}")


def update_rule(cfg: OptimizerConfig, steps: int, decayed: Any, matrices: Any) -> optax.GradientTransformation:
    """`cfg.name` without clipping; the trees are `make_optimizer`'s, or functions from parameters to such trees."""
    rate = learning_rate_schedule(cfg, steps)
    if cfg.name == "adafactor":
        return optax.chain(  # optax' own decay comes after the rate, as if this were 1
            optax.adafactor(None, multiply_by_parameter_scale=False),
            optax.add_decayed_weights(-cfg.weight_decay, decayed),  # adafactor has the sign of an update already
            optax.scale_by_learning_rate(rate, flip_sign=False),
        )
    if cfg.name == "muon":
        return optax.contrib.muon(
            rate,
            weight_decay=cfg.weight_decay,
            weight_decay_mask=decayed,
            adam_b1=cfg.beta1,
            adam_b2=cfg.beta2,
            muon_weight_dimension_numbers=matrices,
            consistent_rms=0.2,  # updates as large as AdamW's (arXiv 2502.16982 section 2.2), so one rate serves all
        )
    return optax.adamw(rate, b1=cfg.beta1, b2=cfg.beta2, weight_decay=cfg.weight_decay, mask=decayed)


def trainable_mask(params: Any, trainable: Sequence[str]) -> Any:
    """True at the leaves that are trained at some step (`first_steps`)."""
    return jax.tree.map(lambda first: first != FROZEN, first_steps(params, trainable))


def first_steps(params: Any, trainable: Sequence[str]) -> Any:
    """The step from which each leaf is trained, FROZEN for those that are not.

    Args:
        trainable: PREFIX or PREFIX@STEP, where a prefix is the beginning of a leaf's path, joined by '/', or a pattern
            with `*`; '' is everything. The earliest step counts. A matrix that has a low-rank update stays as it is.

    Raises:
        ConfigError: a prefix or pattern that no parameter has, or a step that is no number.
    """
    paths = [parameter_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    starts = [_prefix_and_step(item) for item in trainable]
    for prefix, _ in starts:
        if not any(_under(path, prefix) for path in paths):
            groups = sorted({path.split("/")[0] for path in paths})
            raise ConfigError(f"training.trainable has {prefix!r}: no such parameters; the groups are {groups}")
    updated = {path.removesuffix(A) for path in paths if path.endswith(A)}

    def first(path: tuple[Any, ...], _: Any) -> int:
        name = parameter_path(path)
        steps = [step for prefix, step in starts if name not in updated and _under(name, prefix)]
        return min(steps, default=FROZEN)

    return jax.tree_util.tree_map_with_path(first, params)


def _prefix_and_step(item: str) -> tuple[str, int]:
    prefix, at, step = item.partition("@")
    if at and not step.isdecimal():
        raise ConfigError(f"training.trainable has {item!r}: want PREFIX@STEP, as in transformer@500")
    return prefix, int(step or 0)


def parameter_path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _under(path: str, prefix: str) -> bool:
    if "*" in prefix:
        return fnmatchcase(path, prefix)
    return not prefix or path == prefix or path.startswith(prefix.rstrip("/") + "/")
