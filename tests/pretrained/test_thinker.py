"""Qwen3-Omni's thinker with its towers against what `transformers` computed with the same weights."""

import jax
import numpy as np
import pytest

from omni_jax.config import MeshConfig
from omni_jax.models import thinker
from omni_jax.models.encoders.qwen_audio import num_outputs
from omni_jax.models.language import logits
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.exporting import tensor_sources
from omni_jax.pretrained.importing import load_model
from omni_jax.pretrained.qwen_omni import THINKER
from omni_jax.pretrained.tensor_files import read_headers

from .published import GOLDEN, GRID, HEARD, MEL_FRAMES

LOGITS = 1e-4
ONE = make_mesh(MeshConfig(), jax.devices()[:1])
WHOLE = GOLDEN / "qwen3_omni"


@pytest.fixture(scope="module")
def model():
    return load_model(WHOLE, ONE, family=THINKER)


def thinker_input(expected):
    """What the oracle has read, as our model takes it."""
    ids = expected["ids"].astype(np.int32)
    picture, clip = ids == 61, ids == 60
    rows, columns = GRID
    block, inside = np.divmod(np.arange(rows * columns), 4)
    row, column = np.divmod(block, columns // 2)
    places = np.stack([2 * row + inside // 2, 2 * column + inside % 2], -1)[None].astype(np.int32)
    silence = -MEL_FRAMES % 100
    return thinker.ThinkerInput(
        text=ids,
        position_ids=thinker.position_ids(picture[0], [GRID])[None],
        audio_index=np.where(clip, np.cumsum(clip, axis=1) - 1, -1).astype(np.int32),
        patch_index=np.where(picture, np.cumsum(picture, axis=1) - 1, -1).astype(np.int32),
        mel=np.pad(expected["mel"], ((0, 0), (0, silence), (0, 0))),
        mel_frames=np.asarray([MEL_FRAMES], np.int32),
        patches=expected["patches"],
        patch_positions=places,
        patch_sizes=np.broadcast_to(np.asarray(GRID, np.int32), places.shape),
        patch_segment_ids=np.ones(places.shape[:2], np.int32),
    )


def test_logits_and_cached_greedy_decoding(model):
    expected = np.load(WHOLE / "expected.npz")
    inputs = thinker_input(expected)
    np.testing.assert_array_equal(inputs.position_ids, expected["positions"])
    np.testing.assert_allclose(thinker.logits(model.config, model.params, inputs), expected["logits"], atol=LOGITS)
    said = thinker.greedy(model.config, model.params, inputs, expected["said"].shape[1])
    np.testing.assert_array_equal(said, expected["said"])


def test_thirteen_outputs_a_hundred_frames():
    counts = [int(num_outputs(np.asarray(frames), 100)) for frames in (1, 8, 9, 99, 100, 101, MEL_FRAMES, 3000)]
    assert counts == [1, 1, 2, 13, 13, 14, HEARD, 390]


def test_the_weights_go_back_bit_for_bit(model):
    published = read_headers(WHOLE)
    sources = tensor_sources(THINKER, model.config, model.params, np.dtype(np.float32))
    stripped = {name.removeprefix("thinker."): source for name, source in sources.items()}
    assert stripped.keys() == {name.removeprefix("thinker.") for name in published}
    for name, tensor in published.items():
        assert stripped[name.removeprefix("thinker.")].make().tobytes() == tensor.read().tobytes(), name
    assert THINKER.read_config(THINKER.write_config(model.config)) == model.config


def test_the_text_path_alone_is_a_text_model(model):
    text = load_model(WHOLE, ONE)
    assert text.config == model.config.text
    assert all(name.startswith(("audio_tower.", "visual.")) for name in text.report.unused)
    ids = np.arange(6, dtype=np.int32)[None]
    absent = np.full(ids.shape, -1, np.int32)
    inputs = thinker_input(np.load(WHOLE / "expected.npz"))._replace(
        text=ids,
        position_ids=np.repeat(np.arange(6, dtype=np.int32)[None, :, None], 3, axis=2),
        audio_index=absent,
        patch_index=absent,
    )
    whole = thinker.logits(model.config, model.params, inputs)
    np.testing.assert_allclose(logits(text.config, text.params, ids), whole, atol=LOGITS)
