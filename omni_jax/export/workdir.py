"""Parameters alone as a workdir: what other runs start from and speak through, without the optimizer's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from omni_jax.checkpoint import load_manifest, load_params, params_sha256, save_params
from omni_jax.export.bundle import CODEC, FINAL_STAGE, load_codec_of


def write_workdir(directory: Path, workdir: str | Path, dtype: str) -> None:
    """`directory` becomes a stage's workdir like `workdir`, or a run's with the codec and the final stage in it.

    The arrays stay float32, with no more digits than `dtype` has: any stage goes on from them, and on disk the zeros
    are compressed away (4.8 MB in place of 8.9 MB for 2.4 M parameters in bfloat16). A model is bound to the rounded
    codec beside it. Raises CheckpointError where there is no checkpoint, or the codec is not the model's.
    """
    workdir = Path(workdir)
    if not (workdir / FINAL_STAGE).is_dir():
        config, params = load_params(workdir)
        save_params(directory, config, _rounded(params, dtype), load_manifest(workdir).codec_sha256)
        return
    stage = workdir / FINAL_STAGE
    model_config, model = load_params(stage)
    codec_config, codec = load_codec_of(workdir, stage, model_config, load_manifest(stage).codec_sha256)
    codec = _rounded(codec, dtype)
    save_params(directory / CODEC, codec_config, codec)
    save_params(directory / FINAL_STAGE, model_config, _rounded(model, dtype), params_sha256(codec))


def _rounded(params: Any, dtype: str) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.dtype(dtype)).astype(jnp.float32), params)
