"""The exported programs, run by the copied loader in a process that has no omni_jax, say what the session says."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.tiny import MODEL
from streaming.tiny import CODEC, weights

from omni_jax import dsp
from omni_jax.config import Config
from omni_jax.export import standalone
from omni_jax.export.archive import Bundle, describe, write_archive
from omni_jax.export.directory import whole_or_absent
from omni_jax.export.precision import DTYPES, unpack
from omni_jax.export.programs import write_programs
from omni_jax.models import codec, omni
from omni_jax.models.language import logits
from omni_jax.models.omni_streaming import Sampling
from omni_jax.streaming.batch_session import BatchSession
from omni_jax.streaming.tick import TickConfig, Weights

SAMPLES = 1e-4
FRAMES = 5
SAMPLING = Sampling(text_temperature=0.7, audio_temperature=0.7)

CLIENT = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("omni_jax", "flax", "orbax"):
            raise ImportError(f"the loader must not need {name}")
sys.meta_path.insert(0, Refuse())
import numpy as np
from load import Model
model = Model(".")
given = np.load("given.npz")
state, said = model.start_with_picture(seed=3, picture=given["picture"]), []
for samples in given["samples"]:
    state, output = model.frame(state, samples=samples, exec_mask=np.ones(1, bool))
    said.append(output)
heard = {name: np.stack([np.asarray(output[name]) for output in said]) for name in said[0]}
mask = np.ones(2, bool)
def parts(name, frames, wanted):
    outputs, said = model.call(f"{name}_start", {"exec_mask": mask}), []
    for frame in frames:
        state = {key: value for key, value in outputs.items() if key.startswith("state/")}
        outputs = model.call(name, state | frame | {"exec_mask": mask})
        said.append(outputs[wanted])
    return np.concatenate(said, axis=1)
np.savez(
    "said.npz",
    logits=model.call("text", {"tokens": given["tokens"]})["logits"],
    alone=model.start(seed=3)["state/model/text"],
    audio=parts("hear", [{"samples": samples} for samples in given["heard"]], "audio"),
    own_codes=parts("encode", [{"wav": wav} for wav in given["wav"]], "codes"),
    own_wav=parts("decode", [{"codes": codes} for codes in given["codes"]], "wav"),
    **heard,
)
"""


@pytest.fixture(scope="module", params=DTYPES if os.environ.get("OMNI_JAX_SLOW") == "1" else ["int8"])
def exported(request, tmp_path_factory):
    """The export, and the weights in float32 as its programs compute with them."""
    bundle = Bundle(Config(model=MODEL, codec=CODEC), *weights(), b"", 0)
    stored = bundle.stored(request.param)
    with whole_or_absent(tmp_path_factory.mktemp("export") / "out") as directory:
        write_archive(directory, bundle, stored)
        write_programs(directory, TickConfig(MODEL, CODEC, SAMPLING), stored)
        describe(directory, bundle, stored)
        exported = directory.with_name("out")
    return exported, Weights(unpack(jax.device_get(stored.model)), stored.codec)


def test_a_process_without_this_project_says_the_same(exported):
    exported, (params, codec_params) = exported
    rng = np.random.default_rng(0)
    side = MODEL.vision.image_size
    given = {
        "picture": (np.round(255 * rng.random((1, side, side, 3))) / 255).astype(np.float32),
        "samples": rng.normal(0, 0.1, (FRAMES, 1, 1280)).astype(np.float32),
        "heard": rng.normal(0, 0.1, (FRAMES, 2, 1280)).astype(np.float32),
        "wav": rng.normal(0, 0.1, (FRAMES, 2, 1920)).astype(np.float32),
        "codes": rng.integers(0, MODEL.codebook_size, (FRAMES, 2, 1, MODEL.num_codebooks)),
        "tokens": np.pad(rng.integers(0, MODEL.vocab_size, (1, 9)), ((0, 0), (0, 119)), constant_values=-1),
    }
    np.savez(exported / "given.npz", **given)
    command = [sys.executable, "-c", CLIENT]
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = np.load(exported / "said.npz")
    session = BatchSession(MODEL, params, CODEC, codec_params, SAMPLING, [given["picture"][0]], seed=3)
    for index, samples in enumerate(given["samples"]):
        frame = session.push(samples)
        np.testing.assert_array_equal(said["text"][index], frame.text)
        np.testing.assert_array_equal(said["codes"][index], frame.codes)
        np.testing.assert_allclose(said["samples"][index], frame.samples, atol=SAMPLES)
        np.testing.assert_allclose(said["turn"][index], frame.turn, atol=SAMPLES)
    language = {name: params[name] for name in ("text_embedding", "transformer", "text_head")}
    ours = logits(MODEL, language, jnp.asarray(given["tokens"][:, :9], jnp.int32))
    np.testing.assert_allclose(said["logits"][:, :9], ours, atol=SAMPLES)
    assert said["alone"].shape == (1,)
    _assert_parts_say_the_same(given, said, params, codec_params)


def _assert_parts_say_the_same(given, said, params, codec_params):
    """Two rows at a time, though the frame was exported for one; against whole recordings."""
    heard, wav, codes = (np.concatenate(list(given[name]), axis=1) for name in ("heard", "wav", "codes"))
    model = omni.bind(MODEL, params)
    mel = dsp.log_mel_streaming(jnp.asarray(heard), num_mels=MODEL.audio.num_mels)
    encoded = model.audio_encoder(mel, jnp.ones((2, FRAMES), jnp.int32))
    np.testing.assert_allclose(said["audio"], model.adapt_audio(encoded)[0], atol=SAMPLES)
    np.testing.assert_array_equal(said["own_codes"], codec.encode_codes(CODEC, codec_params, jnp.asarray(wav)))
    ours = codec.decode_codes(CODEC, codec_params, jnp.asarray(codes))
    np.testing.assert_allclose(said["own_wav"], ours, atol=SAMPLES)


def test_the_loader_is_short_and_the_programs_are_listed(exported):
    exported, _ = exported
    with open(standalone.__file__) as file:
        assert len(file.readlines()) < 100
    facts = json.loads((exported / "programs.json").read_text())
    assert facts["platforms"] == ["cpu", "cuda", "tpu"]
    parts = {"hear", "hear_start", "encode", "encode_start", "decode", "decode_start"}
    assert set(facts["programs"]) == {"start", "start_with_picture", "frame", "text"} | parts
    assert facts["jax"] == jax.__version__


def test_a_damaged_program_is_refused(exported):
    exported, _ = exported
    path = exported / "text.stablehlo"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"text\.stablehlo: differs from manifest\.json"):
        standalone.Model(exported).call("text", {})
    path.write_bytes(whole)
