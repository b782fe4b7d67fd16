"""The ONNX graphs, run by onnxruntime step by step, hear and say what the session and the codec do.

Needs an interpreter with jax2onnx and what omni_jax imports: OMNI_JAX_ONNX_PYTHON=.../bin/python (docs/serving.md has
the commands).
"""

import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.tiny import MODEL
from streaming.tiny import CODEC, weights

from omni_jax.config import Config
from omni_jax.errors import UserError
from omni_jax.export import __main__ as export
from omni_jax.export.archive import Bundle, describe, write_archive
from omni_jax.export.directory import whole_or_absent
from omni_jax.models import codec, omni_streaming
from omni_jax.models.omni_streaming import Sampling
from omni_jax.streaming.prefix import prefix_batch, prefix_slots
from omni_jax.streaming.tick import TickConfig, Weights, begin, jit_init_tick, jit_tick

PYTHON = os.environ.get("OMNI_JAX_ONNX_PYTHON")
ROOT = Path(__file__).parents[2]
CLOSE = 1e-4
FRAMES = 6
SAMPLING = Sampling(text_temperature=0.7, audio_temperature=0.7)

CLIENT = """
import json
import numpy as np, onnxruntime
from safetensors.numpy import load_file
table = json.load(open("onnx.json"))
def stream(name, frames, wanted):
    session = onnxruntime.InferenceSession(f"{name}.onnx")
    held, said = load_file(f"{name}.start.safetensors"), []
    for frame in frames:
        outputs = dict(zip(table[name]["outputs"], session.run(table[name]["outputs"], held | frame)))
        held = {key[5:]: value for key, value in outputs.items() if key.startswith("next_state/")}
        said.append(outputs)
    return {f"{name}_{key}": np.stack([outputs[key] for outputs in said]) for key in wanted}
given = np.load("given.npz")
heard = [{key: given[key][i] for key in ("samples", "text", "codes")} for i in range(len(given["samples"]))]
np.savez(
    "said.npz",
    **stream("turns", heard, ("vad", "turn")),
    **stream("codec_encode", [{"wav": wav} for wav in given["wav"]], ("codes",)),
    **stream("codec_decode", [{"codes": codes[:, None]} for codes in given["whole_codes"]], ("wav",)),
)
"""

VOCODERS = """
import jax, jax.numpy as jnp, numpy as np, onnxruntime, tempfile
from pathlib import Path
from safetensors.numpy import load_file
from omni_jax.codec_config import HifiGanConfig, VocosConfig
from omni_jax.export.onnx_graphs import find_converter, vocoder_graph, write_graphs
from omni_jax.models import vocoder
rng = np.random.default_rng(0)
draw = lambda shape: jnp.asarray(rng.normal(0, max(1, np.prod(shape[:-1])) ** -0.5, shape), jnp.float32)
small = HifiGanConfig(input_dim=6, initial_dim=8, rates=(4, 2), kernel_sizes=(8, 4), resblock_kernel_sizes=(3, 5),
                      resblock_dilations=((1, 3), (1, 3)))
for config in (small, VocosConfig(input_dim=6, dim=8, hidden_dim=16, num_layers=2, window=16, hop_samples=4)):
    shapes = jax.eval_shape(lambda: vocoder.init_params(config, jax.random.key(0)))
    # Of unit gain: an untrained vocoder is nearly silent.
    params = jax.tree.map(lambda leaf: draw(leaf.shape), shapes)
    graph = vocoder_graph(config, params, frames=2)
    directory = Path(tempfile.mkdtemp())
    write_graphs(directory, {"vocoder": graph}, find_converter())
    session = onnxruntime.InferenceSession(directory / "vocoder.onnx")
    names = [output.name for output in session.get_outputs()]
    state, worst, loudest = graph.start["state"], 0.0, 0.0
    held = load_file(directory / "vocoder.start.safetensors")
    for _ in range(5):
        frames = rng.normal(size=(1, 2, 6)).astype(np.float32)
        state, wav = vocoder.decode_step(config, params, state, frames, jnp.ones(1, bool))
        outputs = dict(zip(names, session.run(names, held | {"frames": frames})))
        held = {key[5:]: value for key, value in outputs.items() if key.startswith("next_state/")}
        worst = max(worst, np.abs(outputs["wav"] - wav).max())
        loudest = max(loudest, np.abs(wav).max())
    print(type(config).__name__, worst, loudest)
    assert worst < 1e-4 < 0.01 < loudest, (type(config).__name__, worst, loudest)
"""


def _run(*arguments, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run([PYTHON, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _call(samples):
    """What the session says: per frame the text and codes that it goes in with, and its outputs."""
    params, codec_params = weights()
    config, parts = TickConfig(MODEL, CODEC, SAMPLING), Weights(params, codec_params)
    state = jit_init_tick(config, parts, 1, 256, prefix_slots(MODEL), jax.random.key(3))
    prefix = prefix_batch(MODEL, [None])
    state = begin(state._replace(model=omni_streaming.prefill(MODEL, params, state.model, prefix)))
    before, outputs = [], []
    for frame in samples:
        before.append(jax.device_get((state.model.text, state.model.codes)))
        state, output = jit_tick(config, parts, state, frame, np.ones(1, bool))
        outputs.append(jax.device_get(output))
    return [np.stack(field) for field in zip(*before)], jax.tree.map(lambda *leaves: np.stack(leaves), *outputs)


@pytest.mark.skipif(not PYTHON, reason="set OMNI_JAX_ONNX_PYTHON to an interpreter with jax2onnx (docs/serving.md)")
def test_onnxruntime_says_the_same(tmp_path):
    bundle = Bundle(Config(model=MODEL, codec=CODEC), *weights(), b"", 0)
    with whole_or_absent(tmp_path / "archive") as directory:
        stored = bundle.stored("float32")
        write_archive(directory, bundle, stored)
        describe(directory, bundle, stored)
    _run("-m", "omni_jax.export", "--workdir=archive", "--out=onnx", "--format=onnx", cwd=tmp_path)
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, (FRAMES, 1, 1280)).astype(np.float32)
    wav = rng.normal(0, 0.1, (FRAMES, 1, 1920)).astype(np.float32)
    (text, codes), session = _call(samples)
    ready = slice(MODEL.acoustic_delay - 1, None)  # the prefix has chosen codebook 0 of the first frame
    given = {"samples": samples, "text": text, "codes": codes, "wav": wav, "whole_codes": session.codes[ready]}
    np.savez(tmp_path / "onnx" / "given.npz", **given)
    _run("-c", CLIENT, cwd=tmp_path / "onnx")
    said = np.load(tmp_path / "onnx" / "said.npz")
    np.testing.assert_allclose(said["turns_vad"], session.vad, atol=CLOSE)
    np.testing.assert_allclose(said["turns_turn"], session.turn, atol=CLOSE)
    np.testing.assert_allclose(said["codec_decode_wav"], session.samples[ready], atol=CLOSE)
    ours = codec.encode_codes(CODEC, weights()[1], jnp.asarray(wav.reshape(1, -1)))
    np.testing.assert_array_equal(said["codec_encode_codes"][:, 0, 0], ours[0])


@pytest.mark.skipif(not PYTHON, reason="set OMNI_JAX_ONNX_PYTHON to an interpreter with jax2onnx (docs/serving.md)")
def test_vocoders_stream_the_same(tmp_path):
    assert _run("-c", VOCODERS, cwd=tmp_path).count("Config") == 2


def test_without_the_converter_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
    bundle = Bundle(Config(model=MODEL, codec=CODEC), *weights(), b"", 0)
    monkeypatch.setattr(export, "load_bundle", lambda path: bundle)
    with pytest.raises(UserError, match="needs jax2onnx"):
        export.main(["--workdir=run", f"--out={tmp_path / 'out'}", "--format=onnx"])
    assert not list(tmp_path.iterdir())
