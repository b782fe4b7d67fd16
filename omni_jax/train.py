"""Trains one stage, or goes on with it from the workdir's last checkpoint.

python -m omni_jax.train --config=configs/pretrain.py:tiny --workdir=runs/pretrain [--config.training.steps=500]

More flags, for looking after a run: omni_jax/operations.py. Exit codes: launch/README.md.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from omni_jax.config import Config, resolve
from omni_jax.errors import UserError, run_main
from omni_jax.operations import Operations
from omni_jax.parallel import multihost
from omni_jax.training.host_memory import keep_freed_memory
from omni_jax.training.stages import run_stage
from omni_jax.training.watchdog import EXIT_STALLED

COMPILATION_CACHE = Path("~/.cache/omni_jax/xla").expanduser()


def main(arguments: Sequence[str] | None = None) -> int:
    keep_freed_memory()
    config, workdir, operations = parse_flags(sys.argv if arguments is None else ["train", *arguments])
    use_compilation_cache()
    try:
        multihost.initialize()
    except multihost.PeerError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_STALLED
    run_stage(config, workdir, operations)
    if multihost.is_first():
        print(f"{config.stage}: {config.training.steps} steps done, checkpoints and metrics in {workdir}")
    return 0


def parse_flags(arguments: Sequence[str]) -> tuple[Config, str, Operations]:
    """The validated config, the workdir, the operations. Raises UserError for an unknown flag, key, size or value."""
    known = flags.FlagValues()
    define = {"bool": flags.DEFINE_bool, "float": flags.DEFINE_float, "int": flags.DEFINE_integer}
    for item in dataclasses.fields(Operations):
        define.get(item.type, flags.DEFINE_string)(item.name, item.default, "operations.py", flag_values=known)
    values, workdir = read_flags(arguments, "configs/<stage>.py:<size>", known)
    operations = Operations(**{item.name: known[item.name].value for item in dataclasses.fields(Operations)})
    return resolve(values), workdir, operations


def read_flags(
    arguments: Sequence[str], wanted_config: str, values: flags.FlagValues | None = None
) -> tuple[ConfigDict, str]:
    """The config file's values and the workdir; `wanted_config` is what errors say. Raises UserError.

    `values`: further flags, to be read too.
    """
    usage = f"--config={wanted_config} --workdir=DIR"
    config, options = read_options(arguments, usage, {"workdir": ""}, values)
    if not options["workdir"]:
        raise UserError(f"give {usage}")
    return config, options["workdir"]


def read_options(
    arguments: Sequence[str],
    usage: str,
    defaults: Mapping[str, str | bool],
    values: flags.FlagValues | None = None,
) -> tuple[ConfigDict, dict[str, Any]]:
    """The values of the file that `--config` names, and the other flags: texts and switches. Raises UserError.

    `values`: further flags, to be read too.
    """
    values = flags.FlagValues() if values is None else values
    arguments, sources = _without_sources(arguments)
    config_file = config_flags.DEFINE_config_file(
        "config", help_string=usage, flag_values=values, lock_config=True, sys_argv=list(arguments)
    )
    for name, default in defaults.items():
        define = flags.DEFINE_bool if isinstance(default, bool) else flags.DEFINE_string
        define(name, default, usage, flag_values=values)
    try:
        rest = values(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(_one_line(error)) from error
    if rest[1:]:
        raise UserError(f"unknown argument {rest[1]!r}: want {usage}")
    if not config_file.value:
        raise UserError(f"give {usage}")
    if not isinstance(config_file.value, ConfigDict):
        raise UserError(f"{values['config'].config_filename} is not there: want {usage}")
    if sources:
        if "data" not in config_file.value:
            raise UserError(f"{values['config'].config_filename} reads no data: leave --config.data.sources out")
        with config_file.value.unlocked():
            config_file.value.data.sources = sources
    return config_file.value, {name: values[name].value for name in defaults}


def _without_sources(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Takes --config.data.sources.NAME=ADDRESS out: names are free, and a locked ConfigDict takes only known ones."""
    found = [re.fullmatch(r"--?config\.data\.sources\.(\w+)=(.*)", argument) for argument in arguments]
    rest = [argument for argument, match in zip(arguments, found, strict=True) if not match]
    return rest, {match[1]: match[2] for match in found if match}


def use_compilation_cache() -> None:
    """Lets a second run start without compiling; the cache is keyed by program, version and machine.

    In JAX_COMPILATION_CACHE_DIR where that is set (a disk that all hosts see saves a restart's compilation too).
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(COMPILATION_CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def _one_line(error: Exception) -> str:
    """The message itself: ml_collections wraps errors in others, and puts a config file's at the end of a traceback."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error.args[0] if error.args else type(error).__name__).strip()
    if "Traceback" not in text:
        return " ".join(text.split())
    return re.sub(r"^[\w.]*(Error|Exception): ", "", text.splitlines()[-1])


if __name__ == "__main__":
    run_main(main)
