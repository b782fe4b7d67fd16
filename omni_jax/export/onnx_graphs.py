"""The parts that other runtimes take one by one, as ONNX graphs of one streaming step: turn detector, codec, vocoder.

State goes in as `state/...` and comes out as `next_state/...`, for ONNX wants the names of a graph to differ; beside
each graph lie the inputs of a first step. The converter is jax2onnx, from an environment of its own (docs/serving.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from omni_jax.errors import UserError
from omni_jax.export.archive import Bundle
from omni_jax.export.arrays import unflatten, write_arrays
from omni_jax.export.programs import tree_names
from omni_jax.models import codec, omni_streaming, vocoder
from omni_jax.models.vocoder.functional import AnyVocoderConfig
from omni_jax.streaming.batch_session import CACHE_FRAMES
from omni_jax.streaming.frontend import init_tail, mel_step
from omni_jax.streaming.prefix import prefix_batch, prefix_slots
from omni_jax.types import FRAME_LISTEN_SAMPLES, FRAME_SPEECH_SAMPLES, Control

GRAPHS = "onnx.json"
_OPSET = 20  # the first with DFT along any axis
_SETTLED_FRAMES = 12  # of silence, after which its codes no longer change
_ROW = np.ones(1, bool)


class Graph(NamedTuple):
    """`function(**start)` returns a dict with the next `state`; `start` is a first step over silence."""

    function: Callable[..., dict[str, Any]]
    start: dict[str, Any]


def model_graphs(bundle: Bundle) -> dict[str, Graph]:
    """turns, codec_encode and codec_decode, for one call; the weights are constants in them."""
    config, codec_config, codec_params = bundle.config.model, bundle.config.codec, bundle.codec_params

    def turns(state: Any, samples: Any, text: Any, codes: Any) -> dict[str, Any]:
        tail, mel = mel_step(state["mel_tail"], samples, config.audio.num_mels)
        stream = omni_streaming.StreamState(text=text, codes=codes, **state["model"])
        stream, vad, turn = omni_streaming.turn_step(config, bundle.params, stream, mel, _ROW)
        said = {"vad": jax.nn.sigmoid(vad), "turn": jax.nn.softmax(turn, axis=-1)}
        return {"state": {"mel_tail": tail, "model": _without_said(stream)}, **said}

    def encode(state: Any, wav: Any) -> dict[str, Any]:
        state, codes = codec.encode_step(codec_config, codec_params, state, wav, _ROW)
        return {"state": state, "codes": codes}

    def decode(state: Any, codes: Any) -> dict[str, Any]:
        state, wav = codec.decode_step(codec_config, codec_params, state, codes, _ROW)
        return {"state": state, "wav": wav}

    hearing = {"mel_tail": init_tail(1), "model": _without_said(_started(bundle))}
    silence = codec.encode_codes(codec_config, codec_params, jnp.zeros((1, _SETTLED_FRAMES * FRAME_SPEECH_SAMPLES)))
    own = {"text": jnp.array([Control.LISTEN], jnp.int32), "codes": silence[:, -1]}
    samples, wav = jnp.zeros((1, FRAME_LISTEN_SAMPLES)), jnp.zeros((1, FRAME_SPEECH_SAMPLES))
    return {
        "turns": Graph(turns, {"state": hearing, "samples": samples, **own}),
        "codec_encode": Graph(encode, {"state": codec.init_encode_state(codec_config, 1), "wav": wav}),
        "codec_decode": Graph(decode, {"state": codec.init_decode_state(codec_config, 1), "codes": silence[:, -1:]}),
    }


def vocoder_graph(config: AnyVocoderConfig, params: Any, frames: int = 1) -> Graph:
    """A vocoder's step over `frames` mel frames, or frames of codes."""

    def decode(state: Any, frames: Any) -> dict[str, Any]:
        state, wav = vocoder.decode_step(config, params, state, frames, _ROW)
        return {"state": state, "wav": wav}

    units = config.num_codebooks
    inputs = jnp.zeros((1, frames, units or config.input_dim), jnp.int32 if units else jnp.float32)
    return Graph(decode, {"state": vocoder.init_state(config, 1), "frames": inputs})


def write_graphs(directory: Path, graphs: dict[str, Graph], to_onnx: Callable[..., Any]) -> None:
    """NAME.onnx and NAME.start.safetensors (a first step) for every graph, and the list of their inputs and outputs."""
    table = {}
    for name, graph in graphs.items():
        leaves, structure = jax.tree.flatten(graph.start)
        named = tree_names(jax.eval_shape(graph.function, **graph.start))
        outputs = [f"next_{path}" if path.startswith("state/") else path for path in named]

        def flat(*leaves: jax.Array, graph: Graph = graph, structure: Any = structure) -> tuple[jax.Array, ...]:
            outputs = graph.function(**jax.tree.unflatten(structure, leaves))
            # Copied, because what comes out as it went in would be one value with two names.
            return tuple(jnp.array(leaf, copy=True) for leaf in jax.tree.leaves(outputs))

        inputs = tree_names(graph.start)
        to_onnx(
            flat,
            [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves],
            model_name=name,
            opset=_OPSET,
            return_mode="file",
            output_path=directory / f"{name}.onnx",
            input_names=inputs,
            output_names=outputs,
        )
        write_arrays(directory / f"{name}.start.safetensors", unflatten(dict(zip(inputs, leaves))))
        shapes = [[path, list(leaf.shape), str(leaf.dtype)] for path, leaf in zip(inputs, leaves)]
        table[name] = {"inputs": shapes, "outputs": outputs}
    (directory / GRAPHS).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def find_converter() -> Callable[..., Any]:
    """jax2onnx's `to_onnx`. Raises UserError without it."""
    try:
        from jax2onnx import to_onnx

        from omni_jax.export import onnx_fft
    except ImportError as error:
        raise UserError(
            f"--format=onnx needs jax2onnx ({error}), which wants an older orbax than this project: make an "
            "environment for it as in docs/serving.md, and give it an export as --workdir"
        ) from None
    onnx_fft.register()
    return to_onnx


def _started(bundle: Bundle) -> omni_streaming.StreamState:
    """A call before its first frame: the dialogue token is read, and text and codes of the first frame are chosen."""
    config, slots = bundle.config.model, prefix_slots(bundle.config.model)
    stream = omni_streaming.init_stream(config, bundle.params, 1, CACHE_FRAMES, slots)
    return omni_streaming.prefill(config, bundle.params, stream, prefix_batch(config, [None]))


def _without_said(stream: omni_streaming.StreamState) -> dict[str, Any]:
    """The state but for text and codes, which are the caller's to give."""
    return {name: value for name, value in stream._asdict().items() if name not in ("text", "codes")}
