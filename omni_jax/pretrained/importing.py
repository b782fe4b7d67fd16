"""A published text model as a checkpoint of ours: checked whole, then read tensor by tensor, then written whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh

from omni_jax.checkpoint import load_manifest, save_params
from omni_jax.config import Config
from omni_jax.config_dict import to_dict
from omni_jax.errors import UserError
from omni_jax.models import binding
from omni_jax.models.language import LanguageModel
from omni_jax.parallel.sharding import param_shardings
from omni_jax.pretrained.checking import Report, check, without_prefix
from omni_jax.pretrained.families import family_of, read_config
from omni_jax.pretrained.family import Family
from omni_jax.pretrained.kept_parts import KeptParts
from omni_jax.pretrained.paths import flatten, unflatten
from omni_jax.pretrained.peft import read_adapters
from omni_jax.pretrained.placement import fill
from omni_jax.pretrained.tensor_files import read_headers

PUBLISHED, REPORT, MODEL = "published", "import_report.json", "model.json"
# What belongs to a text model besides its weights, copied as it is; never opened here.
COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "LICENSE",
    "README.md",
)


class Imported(NamedTuple):
    """`params` are nested, those of the family's module that `config` describes."""

    config: Any  # ModelConfig, or an encoder's
    params: dict[str, Any]
    report: Report


def load_model(
    directory: str | Path,
    mesh: Mesh,
    dtype: str = "float32",
    ignore: Sequence[str] = (),
    family: Family | None = None,
    kept: Path | None = None,
) -> Imported:
    """Reads a published text model or encoder straight into arrays sharded over `mesh`.

    Args:
        ignore: patterns of published tensors to leave out.
        family: by default what config.json names.
        kept: directory for finished parts, from which an interrupted reading goes on.

    Raises:
        UserError: an unknown architecture, a pickle, a missing or damaged file, a shape that does not fit, a tensor
            that nothing takes. Everything is checked before the first tensor is read.
    """
    directory = Path(directory)
    values = read_config(directory)
    found = family_of(values)
    if family is not None and family.name != found.name:
        raise UserError(f"{directory}: holds {found.name}, want {family.name}")
    family = family or found
    config = family.read_config(values)
    table, axes_tree = family.entries(config), binding.param_axes(family.model, config)
    axes = flatten(axes_tree)
    tensors = without_prefix(read_headers(directory), family.prefix)
    report = check(family, table, tensors, axes, ignore)
    if report.missing:
        raise UserError(f"{directory}: no tensor fills {', '.join(report.missing)}: is config.json another model's?")
    shardings = flatten(param_shardings(mesh, axes_tree))
    parts = None if kept is None else KeptParts(kept, f"{dtype} {mesh.shape} {config} {sorted(tensors.items())}")
    arrays = fill(table, tensors, axes, shardings, jnp.dtype(dtype), parts)
    return Imported(config, unflatten(arrays), report)


def import_text_model(
    directory: str | Path,
    out: str | Path,
    mesh: Mesh,
    dtype: str = "float32",
    ignore: Sequence[str] = (),
    adapters: str | Path | None = None,
) -> Report:
    """Writes a workdir that `training.init_from` takes. Raises UserError, and then leaves nothing behind.

    A large import that is killed leaves its finished parts beside `out`, and the same import goes on from them.

    `adapters`: a directory of PEFT adapters, which become the model's low-rank updates.
    """
    directory, out = Path(directory), Path(out)
    if out.exists():
        raise UserError(f"{out}: exists already: remove it or give another --out")
    family = family_of(read_config(directory))
    if family.model is not LanguageModel:
        raise UserError(f"{directory}: {family.name} is an encoder, no model to train alone: read it with load_model")
    kept = out.absolute().with_name(f".{out.name}.parts")
    loaded = load_model(directory, mesh, dtype, ignore, kept=kept)
    if adapters:
        config, params = read_adapters(family, loaded.config, loaded.params, Path(adapters))
        loaded = loaded._replace(config=config, params=params)
    try:
        save_params(out, Config(stage="pretrain", size="imported", model=loaded.config), loaded.params)
        copy_published(directory, out / PUBLISHED)
        (out / MODEL).write_text(json.dumps(to_dict(loaded.config), indent=2) + "\n")
        (out / REPORT).write_text(json.dumps(loaded.report._asdict(), indent=2) + "\n")
    except BaseException as error:
        shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"{out}: cannot be written ({error.strerror or error}): give another --out") from None
        raise
    shutil.rmtree(kept, ignore_errors=True)
    return loaded.report


def find_published(workdir: str | Path) -> Path | None:
    """The published files that a workdir, or the one that it was started from, keeps; None when there are none."""
    seen: set[Path] = set()
    waiting = [Path(workdir)]
    while waiting:
        here = waiting.pop(0)
        if (here / PUBLISHED / "config.json").is_file():
            return here / PUBLISHED
        if here not in seen and (here / "checkpoints").is_dir():
            parts = load_manifest(here).config.training.init_from.split(",")
            waiting += [Path(part.rpartition("=")[2].strip()) for part in parts if part]
        seen.add(here)
    return None


def copy_published(directory: Path, out: Path) -> None:
    """Configuration, tokenizer and licence of a published model, so that an export can carry them on."""
    out.mkdir(parents=True)
    for name in COPIED:
        if (directory / name).is_file():
            shutil.copyfile(directory / name, out / name)
