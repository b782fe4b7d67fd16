"""The update rule with warmup and cosine decay; frozen parameters stay untouched."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import jax
import optax
import optax.contrib

from omni_jax.config import OptimizerConfig
from omni_jax.errors import ConfigError
from omni_jax.nn.low_rank import A


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
    cfg: OptimizerConfig, steps: int, decay_mask: Any, trainable_mask: Any, matrices: Any = None
) -> optax.GradientTransformation:
    """`cfg.name` on the trainable parameters: AdamW (arXiv 1711.05101), Adafactor (1804.04235) or Muon (2502.16982).

    Args:
        decay_mask: True at the leaves that weight decay pulls to zero (matrices, not norms, biases or embeddings).
        trainable_mask: False at the leaves that stay as they are; they have no moments either.
        matrices: for Muon, `optax.contrib.MuonDimensionNumbers` at the leaves that it orthogonalises, None at those
            that Adam updates.
    """
    decayed = jax.tree.map(lambda decay, train: decay and train, decay_mask, trainable_mask)
    update = optax.chain(optax.clip_by_global_norm(cfg.clip_norm), _rule(cfg, steps, decayed, matrices))
    labels = jax.tree.map(lambda train: "trainable" if train else "frozen", trainable_mask)
    return optax.partition({"trainable": update, "frozen": optax.set_to_zero()}, labels)


def _rule(cfg: OptimizerConfig, steps: int, decayed: Any, matrices: Any) -> optax.GradientTransformation:
    rate = learning_rate_schedule(cfg, steps)
    if cfg.name == "adafactor":
        return optax.adafactor(
            rate, multiply_by_parameter_scale=False, weight_decay_rate=cfg.weight_decay, weight_decay_mask=decayed
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


def trainable_mask(params: Any, prefixes: tuple[str, ...]) -> Any:
    """True at the leaves whose path, joined by '/', starts with one of `prefixes`, or matches it as a pattern with `*`.

    '' is everything. A matrix that has a low-rank update stays as it is. Raises ConfigError for a prefix or pattern
    that no parameter has.
    """
    paths = [parameter_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for prefix in prefixes:
        if not any(_under(path, prefix) for path in paths):
            groups = sorted({path.split("/")[0] for path in paths})
            raise ConfigError(f"training.trainable has {prefix!r}: no such parameters; the groups are {groups}")
    updated = {path.removesuffix(A) for path in paths if path.endswith(A)}

    def trained(path: tuple[Any, ...], _: Any) -> bool:
        name = parameter_path(path)
        return name not in updated and any(_under(name, prefix) for prefix in prefixes)

    return jax.tree_util.tree_map_with_path(trained, params)


def parameter_path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _under(path: str, prefix: str) -> bool:
    if "*" in prefix:
        return fnmatchcase(path, prefix)
    return not prefix or path == prefix or path.startswith(prefix.rstrip("/") + "/")
