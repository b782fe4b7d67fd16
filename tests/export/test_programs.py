"""The exported programs, run by the copied loader in a process that has no omni_jax, say what the session says."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.tiny import MODEL
from streaming.tiny import CODEC, weights

from omni_jax.config import Config
from omni_jax.export import standalone
from omni_jax.export.directory import write_export
from omni_jax.export.programs import write_programs
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
text = {"tokens": given["tokens"]}
np.savez("said.npz", logits=model.call("text", text)["logits"], alone=model.start(seed=3)["state/model/text"], **heard)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "out"
    params, codec_params = weights()
    config = TickConfig(MODEL, CODEC, SAMPLING)

    def programs(path):
        write_programs(path, config, Weights(params, codec_params), platforms=("cpu", "cuda", "tpu"))

    return write_export(directory, Config(), params, codec_params, b"", 0, programs)


def test_a_process_without_this_project_says_the_same(exported):
    rng = np.random.default_rng(0)
    side = MODEL.vision.image_size
    given = {
        "picture": (np.round(255 * rng.random((1, side, side, 3))) / 255).astype(np.float32),
        "samples": rng.normal(0, 0.1, (FRAMES, 1, 1280)).astype(np.float32),
        "tokens": np.pad(rng.integers(0, MODEL.vocab_size, (1, 9)), ((0, 0), (0, 119)), constant_values=-1),
    }
    np.savez(exported / "given.npz", **given)
    command = [sys.executable, "-c", CLIENT]
    done = subprocess.run(command, cwd=exported, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = np.load(exported / "said.npz")
    params, codec_params = weights()
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


def test_the_loader_is_short_and_the_programs_are_listed(exported):
    with open(standalone.__file__) as file:
        assert len(file.readlines()) < 100
    facts = json.loads((exported / "programs.json").read_text())
    assert facts["platforms"] == ["cpu", "cuda", "tpu"]
    assert set(facts["programs"]) == {"start", "start_with_picture", "frame", "text"}
    assert facts["jax"] == jax.__version__


def test_a_damaged_program_is_refused(exported):
    path = exported / "text.stablehlo"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"text\.stablehlo: differs from manifest\.json"):
        standalone.Model(exported).call("text", {})
    path.write_bytes(whole)
