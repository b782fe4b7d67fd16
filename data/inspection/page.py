"""The HTML page of some examples: one file, no outside resource."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
from jaxtyping import Float, Int

from data.inspection import lanes, media
from data.inspection.shown import Shown
from omni_jax.config import Config
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.tokenizer import Tokenizer
from omni_jax.types import (
    ABSENT,
    FRAME_RATE_HZ,
    LISTEN_SAMPLE_RATE_HZ,
    MEL_FRAMES_PER_SLOT,
    SPEECH_SAMPLE_RATE_HZ,
    Batch,
    Control,
)

TEMPLATE = Path(__file__).parent / "page.html.j2"
WORD_START = "\u2581"
TASK_COLOURS = ("#3b7ea1", "#d9783a", "#3a8f63", "#8a6fb0", "#b8912f", "#c2513d", "#5b6fb5", "#7a8b99")

Decode = Callable[[Int[np.ndarray, "F Q"]], Float[np.ndarray, "N"]]  # 24 kHz


def render(
    config: Config,
    batches: Sequence[Batch],
    seen: int,
    examples: Sequence[Shown],
    tokenizer: Tokenizer,
    decode: Decode | None,
) -> str:
    """`examples` are some of the `seen` in `batches`; `decode` makes own codes audible, where there is a codec."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True)
    filled = np.mean([batch.timeline.segment_ids > 0 for batch in batches])
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        config=f"stage {config.stage}, size {config.size}",
        seed=config.seed,
        seen=seen,
        batches=len(batches),
        filled=f"{100 * filled:.1f}",
        legend=lanes.legend(),
        rows=[_row(batches[0], row) for row in range(len(batches[0].task))],
        examples=[_example(config, example, tokenizer, decode) for example in examples],
    )


def _row(batch: Batch, row: int) -> list[dict[str, Any]]:
    ids, parts = batch.timeline.segment_ids[row], []
    for segment in range(1, ids.max(initial=0) + 1):
        mask = ids == segment
        task = int(batch.task[row][mask][0])
        parts.append(
            {
                "task": Task(task).name.lower(),
                "positions": int(mask.sum()),
                "share": f"{100 * mask.mean():.3f}",
                "colour": TASK_COLOURS[task % len(TASK_COLOURS)],
            }
        )
    return parts


def _example(config: Config, example: Shown, tokenizer: Tokenizer, decode: Decode | None) -> dict[str, Any]:
    fields = example.fields
    facts = [
        f"{example.num_positions} position{'s' * (example.num_positions > 1)}",
        f"{int((fields['text_weight'] > 0).sum())} text targets",
    ]
    own = fields["codes"][:, 0] != ABSENT
    if own.any():
        facts.append(f"{int(own.sum())} frames of own speech")
    shown = [*_heard(example), *_seen(example, tokenizer)]
    if own.any():
        shown.append(_spoken(config, fields["codes"][own], decode))
    return {
        "task": example.task.name.lower(),
        "facts": ", ".join(facts),
        "timeline": markupsafe.Markup(lanes.timeline_svg(example, tokenizer.id_to_piece)),
        "tokens": _tokens(example, tokenizer),
        "media": shown,
    }


def _heard(example: Shown) -> list[dict[str, Any]]:
    if example.mel is None:
        return []
    seconds = len(example.mel) / (8 * FRAME_RATE_HZ)
    if not example.mel.shape[1]:
        return [_item("mel", f"{seconds:.2f} s of speech as written words", None, None)]
    wav = media.heard_again(example.mel)
    caption = f"heard: {seconds:.2f} s, {example.mel.shape[1]} mel bins"
    item = _item("mel", caption, media.spectrogram(example.mel), media.sound(wav, LISTEN_SAMPLE_RATE_HZ))
    return [item | {"width": len(example.mel) // MEL_FRAMES_PER_SLOT * lanes.COLUMN}]


def _seen(example: Shown, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    if example.patches is None:
        return []
    caption = f"{len(example.patches)} patches" + (f", named {tokenizer.decode(example.tag)!r}" if example.tag else "")
    image = media.picture(example.patches, example.patch_positions) if example.patches.shape[1] else None
    return [_item("picture", caption, image, None)]


def _spoken(config: Config, codes: Int[np.ndarray, "F Q"], decode: Decode | None) -> dict[str, Any]:
    image, width = media.code_map(codes, config.model.codebook_size), {"width": len(codes) * lanes.COLUMN}
    delay = config.model.acoustic_delay
    caption = f"own codes, codebook 0 on top, the others {delay} frame{'s' if delay != 1 else ''} later"
    if decode is None:
        return _item("codes", f"{caption}; training.codec_from makes them audible", image, None) | width
    aligned = np.concatenate([codes[: len(codes) - delay, :1], codes[delay:, 1:]], axis=1)
    return _item("codes", caption, image, media.sound(decode(np.maximum(aligned, 0)), SPEECH_SAMPLE_RATE_HZ)) | width


def _item(kind: str, caption: str, image: str | None, sound: str | None) -> dict[str, Any]:
    return {"kind": kind, "caption": caption, "image": image, "sound": sound, "width": None}


def _tokens(example: Shown, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """What is carried, shaded by what it counts as a target: the weight stands one position before."""
    text, weights = example.fields["text"], example.fields["text_weight"]
    tokens = []
    for at, token in enumerate(text):
        weight = float(weights[at - 1]) if at else 0.0
        if token == ABSENT or token in (Control.LISTEN, Control.WAIT, Control.EPAD):
            continue
        prompt = token <= max(Control)
        piece = Control(int(token)).name if prompt else tokenizer.id_to_piece(int(token))
        if piece.startswith(WORD_START) and tokens:
            tokens[-1]["space"] = True
        shade = f"{min(0.5, 0.12 + 0.04 * weight):.2f}" if weight else "0"
        tokens.append(
            {
                "text": piece.lstrip(WORD_START),
                "prompt": prompt,
                "weight": f"{weight:g}",
                "shade": shade,
                "space": prompt,
            }
        )
    return tokens
