"""Our codecs and vocoder with the weights of the transformers library's: the same latents, codes and waveforms.

The fixtures hold what the library computed. Where torch and transformers are installed, the files that we write are
loaded back into the library as well.
"""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omni_jax.errors import UserError
from omni_jax.models import codec, vocoder
from omni_jax.pretrained import codecs, dac, hifigan, seanet
from tests.pretrained.published_codecs import GOLDEN, LENGTHS, MODELS, compute, randomise, tensors_of

TOLERANCE = 1e-4
CODECS = {
    "encodec": (seanet.encodec_config, seanet.read_encodec, seanet.write_encodec),
    "mimi": (seanet.mimi_config, seanet.read_mimi, seanet.write_mimi),
    "dac": (dac.dac_config, dac.read_dac, dac.write_dac),
}
needs_library = pytest.mark.skipif(
    not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")),
    reason="compares with torch and transformers, which are not installed",
)


@pytest.fixture(scope="module")
def golden():
    files = {}
    for name in MODELS:
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            values = dict(arrays)
        config = json.loads(values.pop("config").tobytes())
        tensors = {key.removeprefix("weights/"): values[key] for key in values if key.startswith("weights/")}
        files[name] = config, tensors, values
    return files


def check_codec(cfg, params, expected):
    def compute_ours(params, wav, codes):
        model = codec.bind(cfg, params)
        latents = model.encoder(wav)
        return latents, model.quantizer.encode(latents), model.decode(codes)

    latents, codes, wav = jax.jit(compute_ours)(params, expected["input"], expected["codes"])
    np.testing.assert_allclose(latents, expected["latents"], atol=TOLERANCE)
    np.testing.assert_array_equal(codes, expected["codes"])
    np.testing.assert_allclose(wav, expected["wav"], atol=TOLERANCE)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", CODECS)
def test_codec_computes_what_the_library_computes(golden, name, length):
    config, tensors, values = golden[name]
    make_config, read, _ = CODECS[name]
    cfg = make_config(config)
    expected = {key.split("/")[1]: value for key, value in values.items() if key.startswith(f"{length}/")}
    assert expected["wav"].std() > 0.01 and len(np.unique(expected["codes"])) > 4
    check_codec(cfg, read(tensors, cfg), expected)


@pytest.mark.parametrize("length", LENGTHS)
def test_hifigan_computes_what_the_library_computes(golden, length):
    config, tensors, values = golden["hifigan"]
    cfg = hifigan.hifigan_config(config)
    params = hifigan.read_hifigan(tensors, cfg)
    wav = vocoder.decode(cfg, params, jnp.asarray(values[f"{length}/frames"]))
    assert values[f"{length}/wav"].std() > 0.01
    np.testing.assert_allclose(wav, values[f"{length}/wav"], atol=TOLERANCE)


def test_what_is_written_is_what_was_read(golden):
    for name, (make_config, read, write) in CODECS.items():
        config, tensors, _ = golden[name]
        cfg = make_config(config)
        params = read(tensors, cfg)
        again = read(write(params, cfg), cfg)
        for ours, theirs in zip(_leaves(params), _leaves(again), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", [*CODECS, "hifigan"])
def test_names_and_shapes_written_are_exactly_the_librarys(golden, name):
    """So nothing is missing and nothing unexpected when the library loads what we wrote."""
    config, tensors, _ = golden[name]
    hifigan_functions = (hifigan.hifigan_config, hifigan.read_hifigan, hifigan.write_hifigan)
    make_config, read, write = CODECS.get(name, hifigan_functions)
    cfg = make_config(config)
    written = write(read(tensors, cfg), cfg)
    assert {key: value.shape for key, value in written.items()} == {key: value.shape for key, value in tensors.items()}


def test_mimi_in_the_names_of_version_4(golden):
    config, tensors, _ = golden["mimi"]
    renamed = {
        name.replace("encoder.encoder_seanet.", "encoder.")
        .replace("decoder.decoder_seanet.", "decoder.")
        .replace("encoder.encoder_transformer.", "encoder_transformer.")
        .replace("decoder.decoder_transformer.", "decoder_transformer.")
        .replace("encoder.downsample.", "downsample.")
        .replace("decoder.upsample.", "upsample."): value
        for name, value in tensors.items()
    }
    cfg = seanet.mimi_config(config)
    for old, new in zip(_leaves(seanet.read_mimi(renamed, cfg)), _leaves(seanet.read_mimi(tensors, cfg)), strict=True):
        np.testing.assert_array_equal(old, new)


def test_encodec_in_the_names_of_published_files(golden):
    """They hold weight norms as weight_g and weight_v."""
    config, tensors, _ = golden["encodec"]
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    renamed = {}
    for name, value in tensors.items():
        for new_name, old_name in old.items():
            name = name.replace(new_name, old_name)
        renamed[name] = value
    cfg = seanet.encodec_config(config)
    first, second = seanet.read_encodec(renamed, cfg), seanet.read_encodec(tensors, cfg)
    for a, b in zip(_leaves(first), _leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CODECS)
def test_weights_of_another_shape_or_model_are_refused(golden, name):
    config, tensors, _ = golden[name]
    make_config, read, _ = CODECS[name]
    cfg = make_config(config)
    missing = dict(list(tensors.items())[1:])
    with pytest.raises(UserError, match="there is no '"):
        read(missing, cfg)
    with pytest.raises(UserError, match=r"1 tensors are not known, such as 'other.weight'"):
        read(tensors | {"other.weight": np.zeros(1)}, cfg)
    wider = {key: np.concatenate([value, value]) if "encoder" in key else value for key, value in tensors.items()}
    with pytest.raises(UserError, match=r"has shape \(.*the config wants"):
        read(wider, cfg)


@pytest.mark.parametrize("name", CODECS)
def test_a_directory_that_was_written_is_read(golden, tmp_path, name):
    config, tensors, _ = golden[name]
    make_config, read, _ = CODECS[name]
    cfg = make_config(config)
    params = read(tensors, cfg)
    codecs.save_codec_directory(tmp_path, cfg, params)
    found, again = codecs.load_codec_directory(tmp_path)
    if name == "dac":
        assert found == cfg
    else:
        assert dataclasses.replace(found, num_heads=cfg.num_heads) == cfg
    for ours, theirs in zip(_leaves(params), _leaves(again), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_directory_of_something_else_is_refused(golden, tmp_path):
    with pytest.raises(UserError, match=r"config.json: no such file"):
        codecs.load_codec_directory(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="model_type='gpt2': want encodec, mimi or dac"):
        codecs.load_codec_directory(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "dac"}')
    with pytest.raises(UserError, match="has no 'sampling_rate'"):
        codecs.load_codec_directory(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(golden["dac"][0]))
    (tmp_path / "model.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(UserError, match="not readable as safetensors"):
        codecs.load_codec_directory(tmp_path)


@needs_library
@pytest.mark.parametrize("name", CODECS)
def test_written_directory_loads_into_the_library(name, tmp_path):
    """`from_pretrained` reports what was missing, unexpected or of another shape."""
    model = randomise(MODELS[name](), seed=2)
    make_config, read, _ = CODECS[name]
    cfg = make_config(model.config.to_dict())
    codecs.save_codec_directory(tmp_path, cfg, read(tensors_of(model), cfg))
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected, found = compute(name, model, 200), compute(name, again.eval(), 200)
    np.testing.assert_allclose(found["wav"], expected["wav"], atol=TOLERANCE)


@needs_library
@pytest.mark.parametrize("name", [*CODECS, "hifigan"])
def test_written_files_load_into_the_library(name):
    """Other weights than the fixtures', other lengths; nothing missing, nothing unexpected, the same output."""
    import torch

    model, fresh = randomise(MODELS[name](), seed=1), MODELS[name]()
    make_config, read, write = CODECS.get(name, (hifigan.hifigan_config, hifigan.read_hifigan, hifigan.write_hifigan))
    cfg = make_config(model.config.to_dict())
    params = read(tensors_of(model), cfg)
    written = {key: torch.from_numpy(value) for key, value in write(params, cfg).items()}
    fresh.load_state_dict(written, strict=True)
    for length in (131, 360):
        expected, again = compute(name, model, length), compute(name, fresh.eval(), length)
        np.testing.assert_allclose(again["wav"], expected["wav"], atol=TOLERANCE)
        if name in CODECS:
            check_codec(cfg, params, expected)


def _leaves(tree):
    return [value for item in tree.values() for value in (_leaves(item) if isinstance(item, dict) else [item])]
