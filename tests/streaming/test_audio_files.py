"""Recordings of users: what is mended is said, what is wrong is one clear line, what is written is whole."""

import numpy as np
import pytest
import soundfile

from omni_jax.errors import UserError
from omni_jax.streaming import audio_files
from omni_jax.streaming.audio_files import read_recording, require_writable, write_speech


def _tone(seconds: float, sample_rate_hz: int) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * sample_rate_hz)) / sample_rate_hz)).astype("float32")


def test_plain_file_is_taken_as_it_is(tmp_path):
    soundfile.write(tmp_path / "a.wav", _tone(0.5, 16_000), 16_000, subtype="FLOAT")
    recording = read_recording(tmp_path / "a.wav")
    np.testing.assert_array_equal(recording.samples, _tone(0.5, 16_000))
    assert recording.notes == ()


def test_stereo_at_another_rate_is_mixed_and_resampled_and_said(tmp_path):
    tone = _tone(0.5, 44_100)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, np.zeros_like(tone)], axis=1), 44_100)
    recording = read_recording(tmp_path / "a.wav")
    assert "mixed 2 channels" in recording.notes[0] and "44100 Hz to 16000 Hz" in recording.notes[1]
    middle = slice(1_000, -1_000)  # away from the resampler's edges
    np.testing.assert_allclose(recording.samples[middle], _tone(0.5, 16_000)[middle] / 2, atol=1e-3)


def test_too_loud_is_clipped_and_said(tmp_path):
    soundfile.write(tmp_path / "a.wav", 5 * _tone(0.1, 16_000), 16_000, subtype="FLOAT")
    recording = read_recording(tmp_path / "a.wav")
    assert np.abs(recording.samples).max() == 1.0 and "(peak 1.50), clipped" in recording.notes[0]


def _write(path, data: bytes):
    path.write_bytes(data)
    return path


def _wav_bytes(path) -> bytes:
    soundfile.write(path, _tone(0.5, 16_000), 16_000)
    return path.read_bytes()


def _not_finite(path):
    soundfile.write(path, np.array([0.0, np.nan, 0.1], np.float32), 16_000, subtype="FLOAT")
    return path


def _no_samples(path):
    soundfile.write(path, np.zeros(0, np.float32), 16_000)
    return path


def _one_sample(path):
    soundfile.write(path, np.zeros(1, np.float32), 48_000)
    return path


def _too_slow(path):
    soundfile.write(path, _tone(0.5, 16_000), 1_000)
    return path


def _too_long(path):
    soundfile.write(path, np.zeros(8_000 * 601, np.float32), 8_000, subtype="PCM_U8")
    return path


_WRONG_FILES = {
    "no such file": lambda path: path,
    "is not a file": lambda path: path.parent,
    "the file is empty": lambda path: _write(path, b""),
    "truncated WAV, its header promises 16000 bytes of audio and 8956 are there": lambda path: _write(
        path, _wav_bytes(path)[:9_000]
    ),
    "truncated WAV, it ends before its audio begins": lambda path: _write(path, _wav_bytes(path)[:30]),
    "not readable as audio": lambda path: _write(path, b"these are words, not waves" * 9),
    "holds no audio": _no_samples,
    "less than a sample at 16000 Hz": _one_sample,
    "NaN or infinity": _not_finite,
    "sample rate 1000 Hz": _too_slow,
    "601 s long, at most 600 s": _too_long,
}


@pytest.mark.parametrize("message", _WRONG_FILES)
def test_wrong_file_is_one_clear_line(message, tmp_path):
    path = _WRONG_FILES[message](tmp_path / "question.wav")
    with pytest.raises(UserError, match=message) as caught:
        read_recording(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_decoded_is_limited_in_all_channels(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_files, "MAX_DECODED_SAMPLES", 15_999)
    soundfile.write(tmp_path / "a.wav", np.zeros((8_000, 2)), 16_000)
    with pytest.raises(UserError, match="8000 samples of 2 channels, at most 15999"):
        read_recording(tmp_path / "a.wav")


def test_written_speech_reads_back(tmp_path):
    speech = _tone(0.3, 24_000)
    write_speech(tmp_path / "out.wav", speech)
    read, sample_rate_hz = soundfile.read(tmp_path / "out.wav")
    assert sample_rate_hz == 24_000 and [path.name for path in tmp_path.iterdir()] == ["out.wav"]
    np.testing.assert_allclose(read, speech, atol=1e-4)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "out.wav").write_bytes(b"old")

    def full_disk(path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile, "write", full_disk)
    with pytest.raises(UserError, match=r"out.wav: cannot be written \(No space left on device\)"):
        write_speech(tmp_path / "out.wav", _tone(0.1, 24_000))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_output_path_is_checked_beforehand(tmp_path):
    with pytest.raises(UserError, match="does not exist: make it with mkdir -p"):
        require_writable(tmp_path / "no" / "out.wav")
    with pytest.raises(UserError, match="is a directory"):
        require_writable(tmp_path)
