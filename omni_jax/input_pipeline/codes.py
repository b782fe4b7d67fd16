"""The codes of the assistant's clips, encoded once with a trained codec, and how its speech sounds when it breaks off.

A clip is encoded with silence before and after it, on the frame grid, so its codes can be put between silence codes at
any frame of a dialogue. Codes are never cut: where an interruption ends the speech, the waveform is faded out and
encoded again.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from omni_jax.input_pipeline.records import DataError
from omni_jax.types import FRAME_SPEECH_SAMPLES

HISTORY_FRAMES = 24  # more than the encoder looks back
TAIL_FRAMES = 8  # silence encoded after the last sample
BUCKET_FRAMES = 32  # clips are padded to a multiple, for few shapes and few compilations
BATCH = 8
FADE_SAMPLES = 1_200  # 50 ms at 24 kHz
FIRST_FADE_FRAME = 6
# With a few places a clip, a model learns the places, and hears no interruption anywhere else.
FADE_EVERY_FRAMES = 2
SHORTEST_REST_FRAMES = 8  # a fade leaves at least this much unsaid

Wav = Float[np.ndarray, "_N"]
Codes = Int[np.ndarray, "_F Q"]
EncodeFn = Callable[[Float[np.ndarray, "B N"]], Int[np.ndarray, "B T Q"]]


@dataclass(frozen=True)
class CodeCache:
    """Codes by clip id, not yet delayed.

    `fades[id][s]` are the TAIL_FRAMES codes from frame s on of the clip faded out over 50 ms from the start of frame s;
    before s they are the clip's own.
    """

    codec_sha256: str
    silence: Int[np.ndarray, "Q"]
    clips: Mapping[str, Codes]
    fades: Mapping[str, Mapping[int, Codes]]

    def faded(self, clip_id: str, stop_frame: int) -> Codes:
        return np.concatenate([self.clips[clip_id][:stop_frame], self.fades[clip_id][stop_frame]])

    def lengths(self) -> dict[str, int]:
        """Frames of each clip's recording."""
        return {clip_id: len(codes) - TAIL_FRAMES for clip_id, codes in self.clips.items()}

    def save(self, directory: str | Path) -> Path:
        """Writes `codes3-<start of the codec's sha256>.npz`, whole or not at all."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        names = list(self.clips)
        stops = [(names.index(clip_id), stop) for clip_id, fades in self.fades.items() for stop in fades]
        tails = [codes for fades in self.fades.values() for codes in fades.values()]
        path = directory / file_name(self.codec_sha256)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(
                file,
                codec_sha256=np.array(self.codec_sha256),
                silence=self.silence,
                names=np.array(names),
                lengths=np.array([len(codes) for codes in self.clips.values()]),
                codes=np.concatenate(list(self.clips.values())).astype(np.int16),
                stops=np.array(stops, np.int32).reshape(-1, 2),
                tails=np.array(tails, np.int16).reshape(-1, TAIL_FRAMES, len(self.silence)),
            )
        temporary.replace(path)
        return path

    @classmethod
    def load(cls, directory: str | Path, codec_sha256: str) -> CodeCache:
        """Raises DataError if the file is not there, cut off, or of another codec."""
        path = Path(directory) / file_name(codec_sha256)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                stored = {name: arrays[name] for name in arrays.files}
            names = [str(name) for name in stored["names"]]
            parts = np.split(stored["codes"].astype(np.int32), np.cumsum(stored["lengths"])[:-1])
            fades: dict[str, dict[int, Codes]] = {}
            for (index, stop), codes in zip(stored["stops"], stored["tails"].astype(np.int32), strict=True):
                fades.setdefault(names[index], {})[int(stop)] = codes
            found = str(stored["codec_sha256"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: no code cache ({error}): delete it, it is built again from the codec") from error
        if found != codec_sha256:
            raise DataError(f"{path}: codes of codec {found[:12]}, want {codec_sha256[:12]}: delete it")
        return cls(found, stored["silence"].astype(np.int32), dict(zip(names, parts, strict=True)), fades)


def file_name(codec_sha256: str) -> str:
    """The number after "codes" changes with what a cache holds, so that an older one is built again."""
    return f"codes3-{codec_sha256[:16]}.npz"


def build_code_cache(clips: Mapping[str, Wav], encode_fn: EncodeFn, codec_sha256: str) -> CodeCache:
    """Encodes every clip (24 kHz, float32) and the faded variants of those that are long enough.

    Args:
      encode_fn: wav [B, N] -> codes [B, N / 1920, Q]; called with B = 8 and a few different N only.
    """
    silence = silence_codes(encode_fn)
    encoded = encode_clips(clips, encode_fn)
    cut = {(clip_id, stop): _faded_window(wav, stop) for clip_id, wav in clips.items() for stop in _fade_frames(wav)}
    fades: dict[str, dict[int, Codes]] = {}
    for (clip_id, stop), codes in _encode_all(cut, encode_fn):
        fades.setdefault(clip_id, {})[stop] = codes[HISTORY_FRAMES : HISTORY_FRAMES + TAIL_FRAMES]
    ordered = {clip_id: {stop: fades[clip_id][stop] for stop in sorted(fades[clip_id])} for clip_id in sorted(fades)}
    return CodeCache(codec_sha256, silence, {clip_id: encoded[clip_id] for clip_id in clips}, ordered)


def silence_codes(encode_fn: EncodeFn) -> Int[np.ndarray, " Q"]:
    """Of a frame that has been silent for long."""
    silent = np.zeros((BATCH, 2 * BUCKET_FRAMES * FRAME_SPEECH_SAMPLES), np.float32)
    return np.asarray(encode_fn(silent))[0, -1].astype(np.int32)


def encode_clips(clips: Mapping[str, Wav], encode_fn: EncodeFn) -> dict[str, Codes]:
    """Codes of each clip (24 kHz, float32), with TAIL_FRAMES of silence after it."""
    whole = {clip_id: _padded(wav) for clip_id, wav in clips.items()}
    return {
        clip_id: codes[HISTORY_FRAMES : HISTORY_FRAMES + num_frames(clips[clip_id]) + TAIL_FRAMES]
        for clip_id, codes in _encode_all(whole, encode_fn)
    }


def num_frames(wav: Wav) -> int:
    return -(-len(wav) // FRAME_SPEECH_SAMPLES)


def fade_out(wav: Wav, stop_frame: int) -> Wav:
    """Silent from 50 ms after the start of `stop_frame`, with a raised-cosine fade before."""
    start = stop_frame * FRAME_SPEECH_SAMPLES
    faded = np.zeros_like(wav)
    faded[:start] = wav[:start]
    slope = 0.5 + 0.5 * np.cos(np.pi * np.arange(FADE_SAMPLES) / FADE_SAMPLES)
    part = wav[start : start + FADE_SAMPLES]
    faded[start : start + len(part)] = part * slope[: len(part)]
    return faded.astype(np.float32)


def _fade_frames(wav: Wav) -> range:
    return range(FIRST_FADE_FRAME, num_frames(wav) - SHORTEST_REST_FRAMES, FADE_EVERY_FRAMES)


def _faded_window(wav: Wav, stop_frame: int) -> Wav:
    """The faded clip from HISTORY_FRAMES before the fade to TAIL_FRAMES after it: one shape for all."""
    padded = np.pad(fade_out(wav, stop_frame), (HISTORY_FRAMES * FRAME_SPEECH_SAMPLES, BUCKET_FRAMES * 1920))
    start = stop_frame * FRAME_SPEECH_SAMPLES
    return padded[start : start + BUCKET_FRAMES * FRAME_SPEECH_SAMPLES]


def _padded(wav: Wav) -> Wav:
    frames = HISTORY_FRAMES + num_frames(wav) + TAIL_FRAMES
    frames += -frames % BUCKET_FRAMES
    before = HISTORY_FRAMES * FRAME_SPEECH_SAMPLES
    return np.pad(wav, (before, frames * FRAME_SPEECH_SAMPLES - before - len(wav))).astype(np.float32)


def _encode_all(wavs: Mapping, encode_fn: EncodeFn) -> Iterator[tuple]:
    """Yields (key, codes), in batches of equal length; the last batch of a length is filled up with silence."""
    by_length: dict[int, list] = {}
    for key, wav in wavs.items():
        by_length.setdefault(len(wav), []).append(key)
    for length, keys in sorted(by_length.items()):
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            batch = np.zeros((BATCH, length), np.float32)
            batch[: len(part)] = [wavs[key] for key in part]
            yield from zip(part, np.asarray(encode_fn(batch)).astype(np.int32), strict=False)
