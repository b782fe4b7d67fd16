"""The model in data/voice: small enough for git, bound to the codec beside it, and it answers what it never heard."""

from pathlib import Path

import jax
import numpy as np
import pytest

from omni_jax.checkpoint import load_manifest, params_sha256
from omni_jax.config import EvalConfig
from omni_jax.evals.held_out import asked_calls, load_held_out, picture_calls
from omni_jax.evals.levels import audible
from omni_jax.evals.naming import named_class
from omni_jax.evals.rollout import run_calls
from omni_jax.evals.transcripts import normalise
from omni_jax.export.bundle import load_bundle
from omni_jax.input_pipeline.materials import load_materials
from omni_jax.types import SPEECH_SAMPLE_RATE_HZ

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "voice"
CALLS = EvalConfig(rows=16, call_frames=75, pictures=16)


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(SHIPPED)


def test_it_is_small_and_belongs_to_the_codec_beside_it(bundle):
    assert sum(leaf.size for leaf in jax.tree.leaves(bundle.params)) <= 4_500_000
    files = [path for part in ("codec", "duplex") for path in (SHIPPED / part / "checkpoints").rglob("*")]
    assert sum(path.stat().st_size for path in files if path.is_file()) <= 15_000_000
    assert load_manifest(SHIPPED / "duplex").codec_sha256 == params_sha256(bundle.codec_params)


def test_it_answers_held_out_voices_and_names_held_out_pictures(bundle):
    held = load_held_out(load_materials(bundle.config, "test"), CALLS.call_frames)
    facts, pictures = asked_calls(held, "fact", "fact_question", 16, 0), picture_calls(held, CALLS)
    replies = run_calls(bundle, CALLS, [*facts, *pictures])
    right = [normalise(reply.text) == normalise(call.expected) for call, reply in zip(facts, replies)]
    named = [named_class(reply.text, held.classes) == call.label for call, reply in zip(pictures, replies[16:])]
    assert np.mean(right) > 0.5 and np.mean(named) > 0.25
    assert np.mean([audible(reply.heard_wav, SPEECH_SAMPLE_RATE_HZ).any() for reply in replies]) > 0.8
