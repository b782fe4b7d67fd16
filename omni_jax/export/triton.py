"""A model repository for Triton Inference Server: `omni/config.pbtxt`, and in `omni/1/` an export with `model.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

from omni_jax.model_config import ModelConfig
from omni_jax.types import FRAME_SPEECH_SAMPLES, TurnState

NAME, VERSION = "omni", "1"
_BACKEND = Path(__file__).with_name("triton_backend.py")  # not imported: it needs what only the server's Python has
_CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {max_calls}
model_transaction_policy {{ decoupled: true }}
sequence_batching {{
  max_sequence_idle_microseconds: 60000000
  control_input [
    {{ name: "START" control [ {{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }} ] }},
    {{ name: "END" control [ {{ kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] }} ] }},
    {{ name: "CORRID" control [ {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }} ] }}
  ]
  oldest {{ max_candidate_sequences: {max_calls} }}
}}
input [
  {{ name: "samples" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "seed" data_type: TYPE_INT32 dims: [ 1 ] optional: true }},
  {{ name: "picture" data_type: TYPE_FP32 dims: [ {side}, {side}, 3 ] optional: true }}
]
output [
  {{ name: "text" data_type: TYPE_INT32 dims: [ 1 ] }},
  {{ name: "codes" data_type: TYPE_INT32 dims: [ {num_codebooks} ] }},
  {{ name: "speech" data_type: TYPE_FP32 dims: [ {speech_samples} ] }},
  {{ name: "vad" data_type: TYPE_FP32 dims: [ 1 ] }},
  {{ name: "turn" data_type: TYPE_FP32 dims: [ {num_turns} ] }}
]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""


def make_repository(directory: Path, config: ModelConfig, max_calls: int) -> Path:
    """Writes the server's configuration and the backend's model; returns the directory that the export goes into.

    `max_calls`: calls that go on at the same time; more of them wait.
    """
    export = directory / NAME / VERSION
    export.mkdir(parents=True)
    shutil.copyfile(_BACKEND, export / "model.py")
    text = _CONFIG.format(
        name=NAME,
        max_calls=max_calls,
        side=config.vision.image_size,
        num_codebooks=config.num_codebooks,
        speech_samples=FRAME_SPEECH_SAMPLES,
        num_turns=len(TurnState),
    )
    (directory / NAME / "config.pbtxt").write_text(text, encoding="utf-8")
    return export
