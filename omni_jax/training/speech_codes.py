"""The codes of the corpus' assistant clips under one codec: built once, kept beside the codec's checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from omni_jax.checkpoint import local_folder, params_sha256
from omni_jax.config import Config
from omni_jax.input_pipeline.codes import CodeCache, build_code_cache, file_name, num_frames, silence_codes
from omni_jax.input_pipeline.corpus import SPLITS, load_speech
from omni_jax.input_pipeline.materials import corpus_source
from omni_jax.models import codec
from omni_jax.parallel.multihost import gather, is_first
from omni_jax.types import SPEECH_SAMPLE_RATE_HZ

_BUILD_TIMEOUT_S = 3600.0


def shared_code_cache(config: Config, codec_params: Any, workdir: str | Path) -> CodeCache:
    """`load_or_build_code_cache` for several processes: the first one builds, the others then read."""
    if not is_first():
        gather("codes built", timeout_s=_BUILD_TIMEOUT_S)
    cache = load_or_build_code_cache(config, codec_params, workdir)
    if is_first():
        gather("codes built", timeout_s=_BUILD_TIMEOUT_S)
    return cache


def load_or_build_code_cache(config: Config, codec_params: Any, workdir: str | Path) -> CodeCache:
    """The cache of `config.data.corpus` under the codec in `training.codec_from`, in that codec's workdir.

    Bad records are written to `workdir`/quarantine.jsonl. Own sources bring their codes along: of them it has only what
    silence is.
    """
    sha256 = params_sha256(codec_params)

    def encode(wav: Float[np.ndarray, "B N"]) -> Int[np.ndarray, "B T Q"]:
        return np.asarray(codec.encode_codes(config.codec, codec_params, wav))

    if config.data.sources:
        return CodeCache(sha256, silence_codes(encode), {}, {})
    directory = local_folder(config.training.codec_from) / "codes"
    source = corpus_source(config, workdir)
    speech = [clip for split in SPLITS for clip in load_speech(source, split, SPEECH_SAMPLE_RATE_HZ)]
    clips = {clip.id: clip.wav() for clip in speech if clip.role == "assistant"}
    if (directory / file_name(sha256)).exists():
        cache = CodeCache.load(directory, sha256)
        if cache.lengths() == {clip_id: num_frames(wav) for clip_id, wav in clips.items()}:
            return cache
    began = time.monotonic()
    cache = build_code_cache(clips, encode, sha256)
    cache.save(directory)
    print(f"encoded {len(clips)} assistant clips to speech codes in {time.monotonic() - began:.0f} s")
    return cache
