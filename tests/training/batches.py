"""A small model and batches of random but valid content."""

import numpy as np

from omni_jax.codec_config import CodecConfig
from omni_jax.config import Config, DataConfig, OptimizerConfig, TrainingConfig
from omni_jax.model_config import AudioEncoderConfig, DepthConfig, ModelConfig, TransformerConfig, VisionEncoderConfig
from omni_jax.types import ABSENT, Batch, Media, Modality, Timeline

CODEBOOKS, CODEBOOK_SIZE, VOCAB = 3, 16, 64

MODEL = ModelConfig(
    vocab_size=VOCAB,
    num_codebooks=CODEBOOKS,
    codebook_size=CODEBOOK_SIZE,
    transformer=TransformerConfig(
        num_layers=2,
        embed_dim=32,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        mlp_dim=64,
        num_experts=4,
        expert_dim=32,
        rope_sections=(2, 1, 1),
    ),
    audio=AudioEncoderConfig(num_mels=16, num_layers=1, embed_dim=32, num_heads=2, mlp_dim=64, left_context_slots=8),
    vision=VisionEncoderConfig(image_size=16, patch_size=4, num_layers=1, embed_dim=32, num_heads=2, mlp_dim=64),
    depth=DepthConfig(num_layers=1, embed_dim=32, num_heads=2, mlp_dim=64),
)


def small_config(stage="duplex", **training):
    return Config(
        stage=stage,
        model=MODEL,
        codec=CodecConfig(num_codebooks=CODEBOOKS, codebook_size=CODEBOOK_SIZE),
        data=DataConfig(
            row_positions=24, rows=8, audio_slots=16, patches=32, speech_positions=8, max_segments=3, max_labels=6
        ),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
        training=TrainingConfig(
            **{"steps": 6, "log_every": 1, "checkpoint_every": 100, "tensorboard": False} | training
        ),
    )


def random_batch(config, seed):
    """Every row: one dialogue segment on the frame grid, then one text segment, then padding."""
    rng = np.random.default_rng(seed)
    data, model = config.data, config.model
    rows, length = data.rows, data.row_positions
    position = np.arange(length)
    frame, text = position < 12, (position >= 12) & (position < 20)
    segment = np.where(frame, 1, np.where(text, 2, 0)).astype(np.int32)
    full = lambda values: np.broadcast_to(values, (rows, length)).astype(np.int32).copy()  # noqa: E731
    codes_shape = (rows, length, model.num_codebooks)
    on_frames = np.broadcast_to(frame[None, :, None], codes_shape)
    draw_codes = lambda: np.where(on_frames, rng.integers(0, model.codebook_size, codes_shape), ABSENT)  # noqa: E731
    timeline = Timeline(
        text=np.where(full(segment > 0), rng.integers(4, model.vocab_size, (rows, length)), ABSENT).astype(np.int32),
        text_target=rng.integers(4, model.vocab_size, (rows, length)).astype(np.int32),
        text_weight=full(segment > 0).astype(np.float32),
        codes=draw_codes().astype(np.int32),
        codes_target=draw_codes().astype(np.int32),
        codes_weight=on_frames.astype(np.float32),
        audio_index=full(np.where(frame, position, ABSENT)),
        patch_index=full(np.where((position >= 12) & (position < 16), position - 12, ABSENT)),
        modality=full(np.where(frame, Modality.FRAME, np.where(text, Modality.TEXT, Modality.PADDING))),
        position_ids=np.repeat(full(position)[..., None], 3, axis=-1),
        segment_ids=full(segment),
        user_vad=np.where(full(frame), rng.integers(0, 2, (rows, length)), ABSENT).astype(np.int32),
        turn_state=np.where(full(frame), rng.integers(0, 6, (rows, length)), ABSENT).astype(np.int32),
        event=np.zeros((rows, length), np.int32),
    )
    speech_index = np.full((rows, data.speech_positions), ABSENT, np.int32)
    speech_index[:, :6] = np.arange(0, 12, 2)
    return Batch(timeline, random_media(config, rng), speech_index, full(segment))


def random_media(config, rng):
    data, model = config.data, config.model
    rows = data.rows
    slots = np.where(np.arange(data.audio_slots) < 12, 1, 0)
    patches = np.where(np.arange(data.patches) < 16, 1, 0)
    labels = np.zeros((rows, data.max_segments, data.max_labels), np.int32)
    labels[:, 0, :4] = rng.integers(1, model.audio.ctc_vocab, (rows, 4))
    weight = np.zeros((rows, data.max_segments), np.float32)
    weight[:, 0] = 1.0
    return Media(
        mel=rng.normal(size=(rows, 8 * data.audio_slots, model.audio.num_mels)).astype(np.float32),
        mel_segment_ids=np.broadcast_to(slots, (rows, data.audio_slots)).astype(np.int32),
        patches=rng.uniform(size=(rows, data.patches, 3 * model.vision.patch_size**2)).astype(np.float32),
        patch_positions=rng.integers(0, 4, (rows, data.patches, 2)).astype(np.int32),
        patch_segment_ids=np.broadcast_to(patches, (rows, data.patches)).astype(np.int32),
        ctc_labels=labels,
        ctc_weight=weight,
        tags=rng.integers(0, model.vocab_size, (*labels.shape[:2], 4)).astype(np.int32),
        phones=rng.integers(-1, model.audio.num_phones, (rows, 4 * data.audio_slots)).astype(np.int32),
        words=rng.integers(-1, model.vocab_size, (rows, data.audio_slots)).astype(np.int32),
    )


class RepeatingLoader:
    """Random batches by index, with the protocol of the real loaders."""

    def __init__(self, config):
        self._config, self._index = config, 0

    def __next__(self):
        batch = random_batch(self._config, self._index)
        self._index += 1
        return batch

    def get_state(self):
        return {"index": self._index}

    def set_state(self, state):
        self._index = state["index"]
