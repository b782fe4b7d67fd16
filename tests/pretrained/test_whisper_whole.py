"""Whisper whole against logits and greedy transcripts that `transformers` computed with the same weights."""

import json

import jax
import numpy as np
import pytest

from omni_jax.config import MeshConfig
from omni_jax.errors import UserError
from omni_jax.evals.whisper_asr import decoding_rules, load_whisper
from omni_jax.models.whisper import logits, transcribe
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.exporting import tensor_sources
from omni_jax.pretrained.importing import load_model
from omni_jax.pretrained.tensor_files import read_headers
from omni_jax.pretrained.whisper import WHISPER_WHOLE

from .published import GOLDEN

LOGITS = 1e-4
ONE = make_mesh(MeshConfig(), jax.devices()[:1])
WHOLE = GOLDEN / "whisper_whole"


@pytest.fixture(scope="module")
def model():
    return load_model(WHOLE, ONE, family=WHISPER_WHOLE)


def test_logits_and_greedy_transcripts(model):
    expected = np.load(WHOLE / "expected.npz")
    got = logits(model.config, model.params, expected["mel"], expected["text"].astype(np.int32))
    np.testing.assert_allclose(got, expected["logits"], atol=LOGITS)
    rules = decoding_rules(json.loads((WHOLE / "generation_config.json").read_text()), model.config.vocab_size)
    assert rules.prompt.tolist() == [3, 4, 6, 8]
    said = transcribe(model.config, model.params, expected["mel"], rules, expected["said"].shape[1])
    np.testing.assert_array_equal(said, expected["said"])


def test_the_weights_go_back_bit_for_bit(model):
    published = read_headers(WHOLE)
    sources = tensor_sources(WHISPER_WHOLE, model.config, model.params, np.dtype(np.float32))
    assert sources.keys() == published.keys()
    for name, source in sources.items():
        assert source.make().tobytes() == published[name].read().tobytes(), name
    assert WHISPER_WHOLE.read_config(WHISPER_WHOLE.write_config(model.config)) == model.config


def test_what_is_missing_or_another_model_is_said(tmp_path):
    with pytest.raises(UserError, match="holds qwen3, want whisper"):
        load_whisper(GOLDEN / "qwen3", 8)
    with pytest.raises(UserError, match="has no 'no_timestamps_token_id'"):
        decoding_rules({"decoder_start_token_id": 1}, 4)
    with pytest.raises(UserError, match=r"tokenizer .*tokenizer\.json is not there"):
        load_whisper(WHOLE, 8)
