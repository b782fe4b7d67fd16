"""A run's directory as the quickstart leaves it, with random weights in place of trained ones."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import sentencepiece
from input_pipeline.conftest import write_corpus
from models.tiny import MODEL
from streaming.tiny import CODEC, weights

from omni_jax.checkpoint import Checkpointer, Manifest, params_sha256
from omni_jax.config import Config, DataConfig, TrainingConfig
from omni_jax.models import omni


def small_run(root: Path) -> Path:
    """A codec, a `pretrain` and a `duplex` stage of random weights, over the beeping picture book."""
    (root / "corpus").mkdir()
    corpus, run = write_corpus(root / "corpus"), root / "run"
    tokenizer = str(corpus / "spm.model")
    vocab_size = sentencepiece.SentencePieceProcessor(model_file=tokenizer).get_piece_size()
    model = dataclasses.replace(MODEL, vocab_size=vocab_size)
    data = DataConfig(corpus=str(corpus), tokenizer=tokenizer, rows=2, audio_slots=256, prefetch=1)
    training = TrainingConfig(codec_from=str(run / "codec"))
    _, codec_params = weights()
    for stage, seed in (("pretrain", 0), ("duplex", 1)):
        config = Config(stage=stage, model=model, codec=CODEC, data=data, training=training)
        params = jax.jit(omni.init_params, static_argnums=0)(model, jax.random.key(seed))
        _save(run / stage, config, params, params_sha256(codec_params) if stage == "duplex" else "")
    _save(run / "codec", Config(stage="codec", model=model, codec=CODEC, data=data), codec_params)
    return run


def _save(workdir: Path, config: Config, params: dict, codec_sha256: str = "") -> None:
    checkpointer = Checkpointer(workdir)
    checkpointer.save(Manifest(7, config, (0, 0), codec_sha256=codec_sha256), params, {"count": np.zeros(())})
    checkpointer.close()
