"""From published files to a trained model and back, by the commands: assemble, a few steps, export, `from_pretrained`.

Runs where torch, transformers 5 and tokenizers are installed, with OMNI_JAX_SLOW=1 (a minute).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from omni_jax.checkpoint import load_params
from omni_jax.config import MeshConfig
from omni_jax.input_pipeline.tokenizer import NUM_CONTROL
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.importing import load_model
from omni_jax.training.optimizer import parameter_path
from tests.input_pipeline.conftest import LINES, write_corpus

from . import published, published_codecs

torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
transformers = pytest.importorskip("transformers", reason="the oracle's models are transformers'")
tokenizers = pytest.importorskip("tokenizers")

ROOT = Path(__file__).parents[2]
ONE = make_mesh(MeshConfig(), jax.devices()[:1])
TRAINED = ("audio_adapter", "vision_adapter", "speech_embedding", "speech_decoder")
STEPS = 8


def write_parts(root):
    """Published files of odd shapes and random weights."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([line[2] for line in LINES], trainer)
    text = transformers.Qwen3Config(
        vocab_size=317, hidden_size=42, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1,
        head_dim=10, intermediate_size=50, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    hear = transformers.WhisperConfig(
        d_model=30, encoder_layers=2, decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=3,
        encoder_ffn_dim=44, decoder_ffn_dim=44, vocab_size=64, num_mel_bins=80, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=3,
    )  # fmt: skip
    see = transformers.SiglipVisionConfig(
        hidden_size=36, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, image_size=80, patch_size=16
    )
    speak = transformers.MimiConfig(
        num_filters=2, upsampling_ratios=[8, 6, 5, 4], hidden_size=12, num_hidden_layers=1, intermediate_size=16,
        num_attention_heads=2, num_key_value_heads=2, codebook_size=32, codebook_dim=6,
        vector_quantization_hidden_dimension=6, num_quantizers=9, upsample_groups=12,
    )  # fmt: skip
    models = {
        "qwen": published.randomise(transformers.Qwen3ForCausalLM(text)),
        "whisper": published.randomise(transformers.WhisperModel(hear)),
        "siglip": published.randomise(transformers.SiglipVisionModel(see)),
        "mimi": published_codecs.randomise(transformers.MimiModel(speak)),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
    tokenizer.save(str(root / "qwen" / "tokenizer.json"))
    return models


def run(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]


def by_path(params):
    return {parameter_path(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(params)}


@pytest.mark.skipif(os.environ.get("OMNI_JAX_SLOW") != "1", reason="compiles a minute long: set OMNI_JAX_SLOW=1")
def test_published_parts_are_trained_around_and_come_back(tmp_path):
    models = write_parts(tmp_path)
    start, trained, out = (tmp_path / name for name in ("start", "trained", "out"))
    parts = {"text": "qwen", "audio": "whisper", "vision": "siglip", "codec": "mimi"}
    given = [f"--{kind}={tmp_path / name}" for kind, name in parts.items()]
    run("omni_jax.pretrained", "assemble", "--config=configs/align.py:tiny", *given, f"--out={start}")
    small = {"corpus": write_corpus(tmp_path / "corpus"), "rows": 2, "audio_slots": 256, "patches": 144}
    run(
        "omni_jax.train",
        f"--config=configs/align.py:{start / 'model.json'}",
        f"--workdir={trained}",
        f"--config.training.init_from={start}",
        f"--config.training.codec_from={start / 'codec'}",
        f"--config.data.tokenizer={start / 'published' / 'tokenizer.json'}",
        f"--config.training.trainable={TRAINED}",
        f"--config.training.steps={STEPS}",
        "--config.training.log_every=1",
        *(f"--config.data.{name}={value}" for name, value in small.items()),
    )
    run("omni_jax.pretrained", "export", f"--workdir={trained}", "--family=qwen3", f"--out={out}")

    losses = [json.loads(line)["loss"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == STEPS and np.isfinite(losses).all()
    before, after = (by_path(load_params(workdir)[1]) for workdir in (start, trained))
    assert before.keys() == after.keys()
    changed = {path for path, leaf in before.items() if leaf.tobytes() != after[path].tobytes()}
    assert {path.split("/")[0] for path in changed} == set(TRAINED)
    for kind, name in (("audio", "whisper"), ("vision", "siglip")):
        tower = by_path(load_model(tmp_path / name, ONE).params)
        assert all(after[f"{kind}_encoder/tower/{path}"].tobytes() == leaf.tobytes() for path, leaf in tower.items())
    check_text(models["qwen"], out)


def check_text(original, out):
    """The exported trunk has the published weights, and its control tokens behind the published ones."""
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    theirs, ours = original.state_dict(), loaded.state_dict()
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name][: len(tensor)]), name
    assert ours["lm_head.weight"].shape[0] == original.config.vocab_size + NUM_CONTROL
