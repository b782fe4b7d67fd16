"""What the encoders take: patches in 2x2 blocks, causal mel frames, CTC labels; and the speech tasks built of them."""

import numpy as np
import pytest

from omni_jax.input_pipeline import augment, features
from omni_jax.input_pipeline.corpus import Span
from omni_jax.input_pipeline.packing import Budget, Packer, assemble
from omni_jax.input_pipeline.speech_tasks import (
    asr_example,
    frame_asr_example,
    frame_tts_example,
    tts_example,
)
from omni_jax.input_pipeline.tasks import Task
from omni_jax.input_pipeline.timeline import Layout
from omni_jax.input_pipeline.tokenizer import Tokenizer, read_tokenizer
from omni_jax.model_config import AudioEncoderConfig, VisionEncoderConfig
from omni_jax.types import ABSENT, FRAME_LISTEN_SAMPLES, Control, Modality, TurnState

Q = 3
WORDS = [Span("it", 0, 150), Span("is", 200, 390), Span("dog", 400, 780)]


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return Tokenizer(read_tokenizer(corpus / "spm.model"))


def test_patches_show_the_picture_in_blocks_of_four():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    patches, positions = features.patches(image, VisionEncoderConfig(image_size=32, patch_size=8))
    assert patches.shape == (16, 192) and patches.max() <= 1.0
    for patch, (row, column) in zip(patches, positions, strict=True):
        expected = image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] / 255.0
        np.testing.assert_allclose(patch.reshape(8, 8, 3), expected, atol=1e-6)
    np.testing.assert_array_equal(positions[:4], [[0, 0], [0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(positions[4:6], [[0, 2], [0, 3]])


def test_pictures_of_any_size_become_a_square():
    patches, _ = features.patches(np.zeros((20, 60, 3), np.uint8), VisionEncoderConfig(image_size=32, patch_size=8))
    assert patches.shape == (16, 192)
    assert patches[0].mean() == 1.0 and patches.min() == 0.0  # white above, the picture in the middle


@pytest.mark.parametrize(
    ("shape", "kept", "grid"),
    [
        ((10, 12), (10, 12), (2, 2)),  # as it is, on white
        ((30, 32), (30, 32), (4, 4)),
        ((20, 60), (16, 48), (2, 6)),  # made smaller, but no more than it must be
        ((300, 30), (64, 6), (8, 2)),  # four times as long as wide at most
        ((4000, 3000), (32, 24), (4, 4)),
    ],
)
def test_pictures_in_native_form_keep_their_aspect(shape, kept, grid):
    config = VisionEncoderConfig(image_size=32, patch_size=8, resize="native")
    patches, positions = features.patches(np.zeros((*shape, 3), np.uint8), config)
    real = positions[:, 0] >= 0
    assert patches.shape == (16, 192) and real.sum() == grid[0] * grid[1]
    assert real[: real.sum()].all() and (positions[~real] == ABSENT).all() and not patches[~real].any()
    assert tuple(positions.max(0) + 1) == grid
    picture = np.zeros((grid[0], 8, grid[1], 8, 3), np.float32)
    picture[positions[real, 0], :, positions[real, 1]] = patches[real].reshape(-1, 8, 8, 3)
    rows, columns = np.nonzero(picture.reshape(8 * grid[0], 8 * grid[1], 3)[..., 0] < 1.0)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == kept


def test_a_picture_in_native_form_costs_what_it_shows():
    config = VisionEncoderConfig(image_size=32, patch_size=8, resize="native")
    parts = [features.patches(np.zeros((*shape, 3), np.uint8), config) for shape in [(20, 60), (10, 12)]]
    examples = [Layout(Task.CAPTION, Q).picture(*part).text([5, 6], 1.0).finish() for part in parts]
    assert [example.num_positions for example in examples] == [1 + 3 + 2, 1 + 1 + 2]
    budget = Budget(1, 16, 1, 0, 32, 2, 0, 0, Q, 80, 192)
    packer = Packer(budget)
    assert all(packer.add(example, 0) for example in examples)
    batch = assemble(packer)
    np.testing.assert_array_equal(batch.media.patch_segment_ids[0], [1] * 12 + [0] * 4 + [2] * 4 + [0] * 12)
    placed = batch.timeline.patch_index[0]
    assert placed[placed >= 0].tolist() == [0, 1, 2, 4]


def test_mel_frames_hear_nothing_of_what_comes_later():
    wav = np.random.default_rng(0).uniform(-0.1, 0.1, 5 * FRAME_LISTEN_SAMPLES).astype(np.float32)
    changed = wav.copy()
    changed[3 * FRAME_LISTEN_SAMPLES :] = 0.0
    before, after = features.log_mel(wav, AudioEncoderConfig()), features.log_mel(changed, AudioEncoderConfig())
    assert before.shape == (40, 80)
    np.testing.assert_array_equal(before[:24], after[:24])
    assert np.abs(before[24] - after[24]).max() > 0


def test_labels_spell_the_text():
    assert features.from_labels(np.array(features.labels("Who's the mm-hm?"))) == "who's the mm hm"
    assert 0 not in features.labels("abc '") and max(features.labels("z' ")) < 32


def test_voice_activity_closes_short_gaps_only():
    tone = np.sin(np.arange(FRAME_LISTEN_SAMPLES)).astype(np.float32)
    on_off = [1, 0, 0, 1, 0, 0, 0, 1]
    wav = np.concatenate([tone * on for on in on_off])
    assert features.voiced_frames(wav).astype(int).tolist() == [1, 1, 1, 1, 0, 0, 0, 1]
    assert features.voiced_samples(np.concatenate([np.zeros(1600), tone, np.zeros(800)]).astype(np.float32))[0] == 1600


def test_another_vocal_tract_moves_a_band_along_frequency_and_keeps_time():
    mel = np.zeros((24, 80), np.float32)
    mel[8:16, 40] = 1.0
    centres = []
    for seed in range(20):
        variation = augment.draw_variation(np.random.default_rng(seed), len(mel), 80, masked=False)
        varied = augment.vary_mel(mel, variation)
        assert varied.shape == mel.shape and varied.dtype == np.float32
        band = varied[12] - varied[0]  # the tilt is the same in every frame
        assert np.abs(varied[:8] - varied[0]).max() == 0 and 0.3 < band.sum() < 3.0
        assert np.abs(varied[0]).max() <= augment.MEL_TILT / 2
        centres.append(band.argmax())
    assert min(centres) < 39 and max(centres) > 41
    assert (
        40 / augment.VOCAL_TRACT_RANGE[1] - 1 <= min(centres) and max(centres) <= 40 / augment.VOCAL_TRACT_RANGE[0] + 1
    )


def test_a_room_adds_a_decaying_tail_and_moves_nothing():
    click = np.zeros(16_000, np.float32)
    click[4_000] = 0.5
    heard = augment.reverberate(np.random.default_rng(0), click, seconds=0.4)
    assert heard.shape == click.shape and np.argmax(np.abs(heard)) == 4_000
    assert np.abs(heard[:4_000]).max() < 1e-6  # nothing before it
    energy = np.square(heard[4_001:]).reshape(-1)[: 11 * 1_000].reshape(11, -1).mean(-1)
    decay_db = 10.0 * np.log10(energy[5] / energy[0])
    assert -54.0 < decay_db < -40.0  # 60 dB in 6,400 samples, so 47 dB in 5,000
    assert energy[-1] < 1e-4 * energy[0]


def test_a_telephone_network_keeps_eight_bits_and_quiet_sounds():
    loud, quiet = 0.8 * np.sin(np.arange(8_000) / 5), 0.01 * np.sin(np.arange(8_000) / 5)
    for wav in (loud.astype(np.float32), quiet.astype(np.float32)):
        heard = augment.mu_law(wav)
        assert len(np.unique(heard)) <= 255
        noise_db = 10.0 * np.log10(np.mean(np.square(heard - wav)) / np.mean(np.square(wav)))
        assert noise_db < -30.0  # G.711 has 33 to 38 dB at any level
    assert set(np.unique(augment.mu_law(np.array([0.0, 1.0, -1.0], np.float32)))) == {0.0, 1.0, -1.0}


def test_recognition_puts_audio_before_text():
    f = asr_example(np.zeros((16, 80), np.float32), [40, 41], (1, 2), Q).fields
    np.testing.assert_array_equal(f["text"], [Control.AUDIO, -1, -1, Control.ASR, 40, 41, Control.EOS])
    np.testing.assert_array_equal(f["audio_index"], [-1, 0, 1, -1, -1, -1, -1])
    np.testing.assert_array_equal(f["text_weight"], [0, 0, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(f["text_target"][3:6], [40, 41, Control.EOS])


@pytest.mark.parametrize("delay", [3, 6])
def test_delayed_text_comes_that_much_after_its_word(tokenizer, delay):
    slots = 30
    voiced = np.zeros(slots, np.int32)
    voiced[:10] = 1
    example = frame_asr_example(np.zeros((8 * slots, 80), np.float32), WORDS, voiced, delay, tokenizer, (), Q)
    f, prompt = example.fields, example.num_positions - slots
    text = f["text"][prompt:]
    assert f["text"][0] == Control.FRAME_ASR
    assert tokenizer.decode(f["text"][1:prompt]) == {3: "three", 6: "six"}[delay]
    assert text[int(WORDS[0].end_ms / 80) + delay] == tokenizer.encode_word("it")[0]
    assert tokenizer.decode(text) == "it is dog"
    assert "codes" not in f and "codes_weight" not in f
    np.testing.assert_array_equal(f["user_vad"][prompt:], voiced)
    named = np.repeat([TurnState.IDLE, TurnState.TURN, TurnState.IDLE], [2, 10, slots - 12])  # two frames late
    np.testing.assert_array_equal(f["turn_state"][prompt:], named)


@pytest.mark.parametrize("delay", [0, 3])
def test_delayed_speech_follows_its_text(tokenizer, delay):
    codes = np.arange(1, 16)[:, None] * 10 + np.arange(Q)
    silence = np.zeros(Q, np.int64)
    example = frame_tts_example(WORDS, codes, silence, delay, 1, tokenizer)
    f = example.fields
    prompt = int(np.flatnonzero(f["modality"] == Modality.FRAME)[0])
    first = prompt + 1 + delay
    np.testing.assert_array_equal(f["codes"][first:, 0], codes[:, 0])
    np.testing.assert_array_equal(f["codes"][first + 1 :, 1:], codes[:-1, 1:])
    assert f["text"][prompt] == Control.SPEAK
    np.testing.assert_array_equal(f["text"][prompt + 1], tokenizer.encode_word("it")[0])
    weighted = f["text_weight"] > 0
    assert set(f["text_target"][weighted]) == {Control.END_OF_TURN}


def test_synthesis_is_text_then_speech():
    codes = np.arange(12).reshape(4, Q)
    f = tts_example([40, 41], codes, 1).fields
    np.testing.assert_array_equal(f["text"][:4], [Control.TTS, 40, 41, Control.AUDIO])
    np.testing.assert_array_equal(f["text"][4:], [Control.WAIT] * 3 + [Control.END_OF_TURN])
    np.testing.assert_array_equal(f["codes_target"][3:7, 0], codes[:, 0])
    np.testing.assert_array_equal(f["codes_weight"][3], [1, 0, 0])
    assert not f["text_weight"][:3].any()
