"""The streaming functions as StableHLO programs with explicit state, for servers that have jax and not this project.

Weights, state and inputs are flat lists of arrays whose names stand in `programs.json`; `load.py` beside it runs them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, Int

from omni_jax.export import standalone
from omni_jax.export.components import Program, component_programs
from omni_jax.export.precision import unpack
from omni_jax.models import omni_streaming
from omni_jax.models.binding import bind
from omni_jax.models.language import LanguageModel
from omni_jax.streaming.batch_session import CACHE_FRAMES
from omni_jax.streaming.prefix import prefix_batch, prefix_slots
from omni_jax.streaming.tick import TickConfig, TickState, Weights, begin, init_tick, tick
from omni_jax.types import FRAME_LISTEN_SAMPLES

PROGRAMS, LOADER = "programs.json", "load.py"
PLATFORMS = ("cpu", "cuda", "tpu")
_TEXT_POSITIONS = 128


def streaming_programs(config: TickConfig, weights: Weights, rows: int) -> dict[str, Program]:
    """start, start_with_picture and frame for `rows` calls at a time; text and the components for any number.

    `weights`: as they are stored, arrays or ShapeDtypeStructs; the programs compute with them in float32.
    """
    side, slots = config.model.vision.image_size, prefix_slots(config.model)
    abstract = partial(jax.tree.map, lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    weights = abstract(weights)
    known = weights._asdict()
    seed = jax.ShapeDtypeStruct((), jnp.int32)

    def start(model: Any, codec: Any, seed: Int[Array, ""], picture: Float[Array, "B H W 3"] | None = None) -> dict:
        model = unpack(model)
        state = init_tick(config, Weights(model, codec), rows, CACHE_FRAMES, slots, jax.random.key(seed))
        prefix = prefix_batch(config.model, [None if picture is None else np.zeros((side, side, 3))] * rows)
        if picture is not None:
            prefix = prefix._replace(media=prefix.media._replace(patches=_patches(picture, prefix.media)))
        read = omni_streaming.read_prefix(config.model, model, state.model, jax.tree.map(jnp.asarray, prefix))
        return {"state": _with_key_data(begin(state._replace(model=read)))}

    def frame(model: Any, codec: Any, state: TickState, samples: Array, exec_mask: Array) -> dict:
        state = state._replace(key=jax.random.wrap_key_data(state.key))
        state, output = tick(config, Weights(unpack(model), codec), state, samples, exec_mask)
        return {"state": _with_key_data(state), **output._asdict()}

    def text(model: Any, tokens: Int[Array, "B T"]) -> dict:
        return {"logits": bind(LanguageModel, config.model, unpack(model))(tokens)}

    state = jax.eval_shape(start, **known, seed=seed)["state"]
    picture = jax.ShapeDtypeStruct((rows, side, side, 3), jnp.float32)
    samples = jax.ShapeDtypeStruct((rows, FRAME_LISTEN_SAMPLES), jnp.float32)
    mask = jax.ShapeDtypeStruct((rows,), jnp.bool_)
    tokens = jax.ShapeDtypeStruct((*export.symbolic_shape("rows"), _TEXT_POSITIONS), jnp.int32)
    language = {"model": {name: known["model"][name] for name in _language_names(known["model"])}}
    return {
        "start": Program(start, {**known, "seed": seed}),
        "start_with_picture": Program(start, {**known, "seed": seed, "picture": picture}),
        "frame": Program(frame, {**known, "state": state, "samples": samples, "exec_mask": mask}),
        "text": Program(text, {**language, "tokens": tokens}),
        **component_programs(config, weights),
    }


def write_programs(
    directory: Path, config: TickConfig, weights: Weights, rows: int = 1, platforms: Sequence[str] = PLATFORMS
) -> None:
    """Writes a file a program, their table and the loader."""
    table = {}
    for name, program in streaming_programs(config, weights, rows).items():
        exported, outputs = _export(program, platforms)
        (directory / f"{name}.stablehlo").write_bytes(exported.serialize())
        leaves = jax.tree.leaves(program.inputs)
        inputs = [[path, _shape(leaf), str(leaf.dtype)] for path, leaf in zip(tree_names(program.inputs), leaves)]
        table[name] = {"inputs": inputs, "outputs": outputs}
    facts = {"jax": jax.__version__, "platforms": list(platforms), "rows": rows, "programs": table}
    (directory / PROGRAMS).write_text(json.dumps(facts, indent=1) + "\n")
    shutil.copyfile(standalone.__file__, directory / LOADER)


def _export(program: Program, platforms: Sequence[str]) -> tuple[export.Exported, list[str]]:
    """The program over flat lists, and the names of its outputs."""
    leaves, structure = jax.tree.flatten(program.inputs)
    names: list[str] = []

    def flat(*leaves: Array) -> tuple[Array, ...]:
        outputs = program.function(**jax.tree.unflatten(structure, leaves))
        names[:] = tree_names(outputs)  # while it is traced: a second trace only for them takes as long
        return tuple(jax.tree.leaves(outputs))

    return export.export(jax.jit(flat), platforms=list(platforms))(*leaves), names


def tree_names(tree: Any) -> list[str]:
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]


def _shape(leaf: Any) -> list[int | str]:
    """Sizes, and the names of symbolic ones."""
    return [size if isinstance(size, int) else str(size) for size in leaf.shape]


def _with_key_data(state: TickState) -> TickState:
    """Typed keys do not cross a program's boundary."""
    return state._replace(key=jax.random.key_data(state.key))


def _language_names(model: dict[str, Any]) -> list[str]:
    return [name for name in ("text_embedding", "transformer", "text_head", "text_head_bias") if name in model]


def _patches(picture: Float[Array, "B H W 3"], media: Any) -> Float[Array, "B P X"]:
    """Cuts pictures as the input pipeline does: flattened pixels in the order of `media.patch_positions`."""
    rows, side, _, _ = picture.shape
    size = round((media.patches.shape[-1] / 3) ** 0.5)
    blocks = picture.reshape(rows, side // size, size, side // size, size, 3).transpose(0, 1, 3, 2, 4, 5)
    blocks = blocks.reshape(rows, side // size, side // size, -1)
    row, column = media.patch_positions[0, :, 0], media.patch_positions[0, :, 1]
    return blocks[:, row, column]
