"""The text families against `transformers` itself, in odd shapes. Runs where torch and transformers 5 are installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.config import MeshConfig
from omni_jax.dsp import log_mel_whisper
from omni_jax.evals.whisper_asr import decoding_rules
from omni_jax.models import binding, thinker, whisper
from omni_jax.models.encoders.tower import WhisperEncoder
from omni_jax.models.language import greedy, logits
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.exporting import export_text_model
from omni_jax.pretrained.families import TEXT_FAMILIES
from omni_jax.pretrained.importing import load_model
from omni_jax.pretrained.peft import write_adapters
from omni_jax.pretrained.qwen_omni import THINKER
from omni_jax.pretrained.whisper import WHISPER_WHOLE

from . import published
from .test_encoders import see
from .test_peft import with_updates
from .test_thinker import thinker_input

torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
transformers = pytest.importorskip("transformers", reason="the oracle's models are transformers'")

LOGITS = 1e-4
BFLOAT16_KL = 1e-3
LOG_MEL = 5e-5
ONE = make_mesh(MeshConfig(), jax.devices()[:1])
CASES = [(family, shape) for family in published.TEXT_FAMILIES for shape in published.SHAPES]


@pytest.mark.parametrize(("family", "shape"), CASES)
def test_both_ways(family, shape, tmp_path):
    model = published.text_model(family, shape, seed=3)
    model.save_pretrained(tmp_path / "in")
    expected = published.text_outputs(model)
    ours = load_model(tmp_path / "in", ONE)
    ids = expected["ids"].astype(np.int32)
    np.testing.assert_allclose(logits(ours.config, ours.params, ids), expected["logits"], atol=LOGITS)
    np.testing.assert_array_equal(greedy(ours.config, ours.params, ids, published.NEW_TOKENS), expected["said"])

    out = export_text_model(ours.config, ours.params, family, tmp_path / "out")
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    before, after = model.state_dict(), loaded.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert type(loaded) is type(model)


@pytest.mark.parametrize("family", published.TEXT_FAMILIES)
def test_bfloat16(family, tmp_path):
    """KL of our next-token distribution from the oracle's, both computed in bfloat16."""
    import dataclasses

    model = published.text_model(family, "golden", seed=5).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "in")
    expected = jax.nn.log_softmax(jnp.asarray(published.text_outputs(model)["logits"]))
    ours = load_model(tmp_path / "in", ONE)
    cfg = dataclasses.replace(ours.config, compute_dtype="bfloat16")
    ids = published.prompt(cfg.vocab_size).astype(np.int32)
    got = jax.nn.log_softmax(logits(cfg, ours.params, ids))
    assert float(jnp.mean(jnp.sum(jnp.exp(expected) * (expected - got), axis=-1))) < BFLOAT16_KL


@pytest.mark.parametrize(
    ("family", "lora"),
    [
        ("llama", "*/attention/*=2,*/mlp/*/kernel=3"),
        ("qwen2", "*/attention/*=dora2,*/mlp/*/kernel=dora3"),
        ("gptj", "*/attention/*=dora2"),
        ("gpt2", "*/attention/out=2,*/mlp/*/kernel=2"),
        ("mixtral", "*/attention/*=2"),
    ],
)
def test_peft_computes_with_our_adapters(family, lora, tmp_path):
    peft = pytest.importorskip("peft")
    cfg, params = with_updates(family, lora)
    write_adapters(TEXT_FAMILIES[family], cfg, params, tmp_path / "adapters")
    model = transformers.AutoModelForCausalLM.from_pretrained(published.GOLDEN / family)
    tuned = peft.PeftModel.from_pretrained(model, tmp_path / "adapters").eval()
    ids = published.prompt(cfg.vocab_size)
    with torch.no_grad():
        expected = tuned(torch.tensor(ids)).logits.numpy()
        with tuned.disable_adapter():
            before = tuned(torch.tensor(ids)).logits.numpy()
    assert np.abs(expected - before).max() > 0.01
    np.testing.assert_allclose(logits(cfg, params, ids.astype(np.int32)), expected, atol=LOGITS)


@pytest.mark.parametrize("shape", ["odd", "one"])
def test_qwen3_omnis_thinker(shape, tmp_path):
    """A text with a picture and a clip in it: logits, and the cached greedy continuation."""
    model = published.thinker_model(shape, seed=6)
    model.save_pretrained(tmp_path)
    expected = published.thinker_outputs(model)
    ours, inputs = load_model(tmp_path, ONE, family=THINKER), thinker_input(expected)
    np.testing.assert_array_equal(inputs.position_ids, expected["positions"])
    np.testing.assert_allclose(thinker.logits(ours.config, ours.params, inputs), expected["logits"], atol=LOGITS)
    said = thinker.greedy(ours.config, ours.params, inputs, published.NEW_TOKENS)
    np.testing.assert_array_equal(said, expected["said"])


@pytest.mark.parametrize("shape", ["odd", "one"])
def test_whisper_whole(shape, tmp_path):
    model = published.recogniser_model(shape, seed=4)
    model.save_pretrained(tmp_path)
    expected = published.recogniser_outputs(model)
    ours = load_model(tmp_path, ONE, family=WHISPER_WHOLE)
    text = expected["text"].astype(np.int32)
    np.testing.assert_allclose(
        whisper.logits(ours.config, ours.params, expected["mel"], text), expected["logits"], atol=LOGITS
    )
    rules = decoding_rules(model.generation_config.to_dict(), ours.config.vocab_size)
    said = whisper.transcribe(ours.config, ours.params, expected["mel"], rules, published.NEW_TOKENS)
    np.testing.assert_array_equal(said, expected["said"])


def test_whisper_transcribes_30_s_as_generate_does(tmp_path):
    """Our log-mel and greedy decoding against `WhisperFeatureExtractor` and `generate`, at Whisper's own shapes."""
    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, begin_suppress_tokens=[220, 50257],
    )  # fmt: skip
    model = published.randomise(transformers.WhisperForConditionalGeneration(config), 3)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=50258, eos_token_id=50257, pad_token_id=50257, no_timestamps_token_id=50363,
        begin_suppress_tokens=[220, 50257], suppress_tokens=[1, 2], is_multilingual=True, max_length=448,
        lang_to_id={"<|en|>": 50259}, task_to_id={"transcribe": 50359}, no_repeat_ngram_size=0,
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    wav = (0.3 * np.sin(np.arange(70_000) * 0.07)).astype(np.float32)
    heard = transformers.WhisperFeatureExtractor()(wav, sampling_rate=16_000, return_tensors="pt").input_features
    said = model.generate(heard, language="en", task="transcribe", max_new_tokens=32, do_sample=False)[0].numpy()
    ours = load_model(tmp_path, ONE, family=WHISPER_WHOLE)
    rules = decoding_rules(model.generation_config.to_dict(), ours.config.vocab_size)
    got = whisper.transcribe(ours.config, ours.params, np.asarray(log_mel_whisper(wav[None])), rules, 32)[0]
    said = said[4:] if said[0] == 50258 else said
    np.testing.assert_array_equal(np.asarray(got)[: len(said)], said)


@pytest.mark.parametrize("shape", ["odd", "one"])
def test_whispers_encoder(shape, tmp_path):
    model = published.encoder_model("whisper", shape, seed=2)
    model.save_pretrained(tmp_path)
    expected, ours = published.whisper_outputs(model), load_model(tmp_path, ONE)
    hidden = binding.bind(WhisperEncoder, ours.config, ours.params)(expected["mel"])
    np.testing.assert_allclose(hidden, expected["hidden"], atol=LOGITS)


@pytest.mark.parametrize(("shape", "side"), [("odd", 5), ("one", 2)])
@pytest.mark.parametrize("name", published.VISION_FAMILIES)
def test_vision_encoders(name, shape, side, tmp_path):
    model = published.encoder_model(name, shape, seed=2)
    model.save_pretrained(tmp_path)
    expected = published.vision_outputs(name, model, side, side)
    hidden = see(load_model(tmp_path, ONE), expected["patches"], side, side)
    np.testing.assert_allclose(hidden, expected["hidden"], atol=LOGITS)


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 5), (5, 1)])
def test_siglip2_interpolates_its_positions(rows, columns, tmp_path):
    model = published.encoder_model("siglip2")
    model.save_pretrained(tmp_path)
    expected = published.vision_outputs("siglip2", model, rows, columns)
    hidden = see(load_model(tmp_path, ONE), expected["patches"], rows, columns)
    np.testing.assert_allclose(hidden, expected["hidden"], atol=LOGITS)


def test_log_mel_is_the_feature_extractors():
    rng = np.random.default_rng(0)
    wav = (0.3 * np.sin(np.arange(70_000) * 0.07) + 0.05 * rng.standard_normal(70_000)).astype(np.float32)
    for num_mels in (80, 128):
        extractor = transformers.WhisperFeatureExtractor(feature_size=num_mels)
        expected = extractor(wav, sampling_rate=16_000, return_tensors="np").input_features[0].T
        assert np.abs(np.asarray(log_mel_whisper(jnp.asarray(wav), num_mels)) - expected).max() < LOG_MEL
