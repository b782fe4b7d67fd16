"""What every family of published checkpoints provides: its configuration and its table of names, both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from omni_jax.errors import UserError
from omni_jax.models.language import LanguageModel
from omni_jax.pretrained.layout import Entry, Layout, Slot

HubConfig = Mapping[str, Any]  # a published config.json


class Family(NamedTuple):
    """`read_config` and `write_config` translate config.json, `entries` is the table of names for a configuration."""

    name: str  # `model_type` in config.json
    read_config: Callable[[HubConfig], Any]
    write_config: Callable[[Any], dict[str, Any]]
    entries: Callable[[Any], list[Entry]]
    model: type = LanguageModel  # what `read_config`'s result configures
    prefix: str = ""  # that some published files have before every name and others lack; written on export
    unused: tuple[str, ...] = ()  # patterns of tensors that hold nothing learned, such as masks


def require(values: HubConfig, wanted: Mapping[str, Sequence[Any]]) -> None:
    """Raises UserError where a config.json asks for something that the model does not compute."""
    for key, accepted in wanted.items():
        if key in values and values[key] not in accepted:
            shown = " or ".join(repr(value) for value in accepted)
            raise UserError(f"config.json: {key}={values[key]!r} is not supported, want {shown}")


def integer(values: HubConfig, key: str, default: int | None = None) -> int:
    """A positive integer of config.json. Raises UserError when it is missing or something else."""
    value = values.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"config.json: {key}={value!r}, want a positive integer: is it the file that was published?")
    return value


def number(values: HubConfig, key: str, default: float) -> float:
    value = values.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UserError(f"config.json: {key}={value!r}, want a number: is it the file that was published?")
    return float(value)


def entry(theirs: str, path: str, layout: Layout, *index: int) -> Entry:
    """The usual line: one tensor, one slot."""
    return Entry(theirs, (Slot(path, index),), layout)
