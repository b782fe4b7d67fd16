"""Nested plain values to frozen configuration classes and back; a wrong key or type is named by its path."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from omni_jax.errors import ConfigError


def from_dict(cls: type, values: Mapping[str, Any], path: str = "") -> Any:
    """Builds the config class `cls` from nested plain values; an unknown key is an error with a suggestion."""
    hints = typing.get_type_hints(cls)
    unknown = [key for key in values if key not in hints]
    if unknown:
        close = difflib.get_close_matches(unknown[0], hints, n=1)
        suggestion = f" Did you mean {path}{close[0]}?" if close else f" Known: {', '.join(sorted(hints))}."
        raise ConfigError(f"unknown config key {path}{unknown[0]}.{suggestion}")
    return cls(**{key: _convert(hints[key], value, f"{path}{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, path: str) -> Any:
    if isinstance(hint, types.UnionType):
        return None if value is None else _convert(_class_of(typing.get_args(hint), value), value, path)
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}={value!r}: want a group of keys")
        return from_dict(hint, value, path + ".")
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path}={value!r}: want a list of values")
        return _frozen(value)
    if origin is not None and issubclass(origin, Mapping):
        return types.MappingProxyType({name: _frozen(item) for name, item in value.items()})
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path}={value!r}: want {hint.__name__}, got {type(value).__name__}")
    return value


def _frozen(value: Any) -> Any:
    """JSON has lists where a config has tuples."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _class_of(choices: tuple[type, ...], value: Any) -> type:
    """The first config class that has all the keys of `value`, else the first."""
    keys = set(value) if isinstance(value, Mapping) else set()
    classes = [choice for choice in choices if choice is not types.NoneType]
    fitting = (cls for cls in classes if keys <= {item.name for item in dataclasses.fields(cls)})
    return next(fitting, classes[0])


def to_dict(config: Any) -> dict[str, Any]:
    """The inverse of `from_dict`, JSON-friendly. A group that is None is left out."""
    out: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if value is None:
            continue
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, Mapping):
            value = dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        out[item.name] = value
    return out
