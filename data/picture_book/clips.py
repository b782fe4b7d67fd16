"""From raw synthesis to a finished clip: timings put right, silence trimmed, loudness levelled, Opus encoded.

Timings come from the synthesiser and are corrected in two steps. First a constant lag: the fricatives' places in the
phone track were slid against the clip's energy over 3.5 kHz, over all voices, and Kokoro's sound comes 50 ms (45 to 65)
before its duration predictor says, flite's and festival's 10 ms after. Second, the pauses: each one inside the clip is
moved to the quiet stretch next to it, and the first and last phone are cut where the sound begins and ends.
"""

import io
import json
import pathlib
from typing import NamedTuple

import numpy as np
import soundfile

from data.picture_book import voices
from data.picture_book.timing import SAMPLE_RATE, Segment

KOKORO_LAG_S, CLASSIC_LAG_S = 0.050, -0.010
HOP = 120  # samples between energies: 5 ms
ACTIVE_DB, QUIET_DB = 40, 35  # below the loudest frame
MARGIN_S = 0.040
LEVEL_DBFS, PEAK = -23.0, 0.97
REACH_S, SHORTEST_PAUSE_S, SHORTEST_PHONE_S = 0.12, 0.03, 0.015
BITRATES = {"assistant": 40_000, "user": 16_000, "reader": 16_000}


class Clip(NamedTuple):
    """A finished clip; times in whole milliseconds from its start, the phones cover all of it."""

    opus: bytes
    num_samples: int
    words: list[str]
    word_times: list[tuple[int, int]]
    phones: list[str]
    phone_times: list[tuple[int, int]]


def load(audio_path: pathlib.Path, timing_path: pathlib.Path, role: str) -> Clip:
    """Reads what `speech.py` wrote and finishes it."""
    audio, _ = soundfile.read(audio_path, dtype="float32")
    record = json.loads(timing_path.read_text())
    lag = KOKORO_LAG_S if voices.is_kokoro(record["voice"]) else CLASSIC_LAG_S
    raw = [Segment(*s) for s in record["segments"]]
    segments = refine([s._replace(start=s.start - lag, end=s.end - lag) for s in raw], energies_db(audio))
    first, last = segments[0].start, segments[-1].end
    begin = max(0, round((first - MARGIN_S) * SAMPLE_RATE))
    end = min(audio.size, round((last + MARGIN_S) * SAMPLE_RATE))
    opus, num_samples = encode(level(audio[begin:end]), BITRATES[role])
    offset = begin / SAMPLE_RATE
    segments = [s._replace(start=s.start - offset, end=s.end - offset) for s in segments]
    return _finish(opus, num_samples, record["text"].split(), segments)


def energies_db(audio: np.ndarray) -> np.ndarray:
    """RMS of 10 ms windows every 5 ms, in dB relative to full scale."""
    count = audio.size // HOP
    squares = np.mean(audio[: count * HOP].reshape(count, HOP) ** 2, axis=-1)
    pairs = (squares + np.append(squares[1:], squares[-1])) / 2
    return 10 * np.log10(pairs + 1e-10)


def refine(segments: list[Segment], energy: np.ndarray) -> list[Segment]:
    """Phones and inner pauses without the silence around them, their borders moved to where the sound changes."""
    hop = HOP / SAMPLE_RATE
    active = np.flatnonzero(energy > energy.max() - ACTIVE_DB) * hop
    first, last = active[0], active[-1] + 2 * hop
    inner = list(segments)
    while inner[0].phone == "pau":
        inner = inner[1:]
    while inner[-1].phone == "pau":
        inner = inner[:-1]
    bounds = [inner[0].start] + [s.end for s in inner]
    for i, segment in enumerate(inner):
        if segment.phone == "pau":  # the phones on both sides keep at least half of their time
            before, after = (inner[i - 1].start + inner[i - 1].end) / 2, (inner[i + 1].start + inner[i + 1].end) / 2
            bounds[i], bounds[i + 1] = np.clip(_quiet_stretch(segment, energy, hop), before, after)
    bounds[0] = first if abs(first - bounds[0]) < 0.2 else max(first, bounds[0])
    bounds[-1] = last
    bounds = _spread(bounds, first, last, [s.phone != "pau" for s in inner])
    return [s._replace(start=a, end=b) for s, a, b in zip(inner, bounds[:-1], bounds[1:], strict=True)]


def _spread(bounds: list[float], first: float, last: float, is_phone: list[bool]) -> list[float]:
    """Increasing bounds from `first` to `last` that leave every phone at least SHORTEST_PHONE_S."""
    least = [SHORTEST_PHONE_S * phone for phone in is_phone]
    bounds = [float(b) for b in bounds]
    bounds[0] = max(bounds[0], float(first))
    for i, width in enumerate(least):
        bounds[i + 1] = max(bounds[i + 1], bounds[i] + width)
    bounds[-1] = min(bounds[-1], float(last))
    for i in reversed(range(len(least))):
        bounds[i] = min(bounds[i], bounds[i + 1] - least[i])
    return bounds


def _quiet_stretch(pause: Segment, energy: np.ndarray, hop: float) -> tuple[float, float]:
    """The longest quiet stretch near a pause; where there is none, the pause shrinks to its middle."""
    low = max(0, int((pause.start - REACH_S) / hop))
    quiet = energy[low : int((pause.end + REACH_S) / hop)] < energy.max() - QUIET_DB
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(int), [0]])))
    runs = edges.reshape(-1, 2)
    if runs.size:
        begin, end = runs[np.argmax(runs[:, 1] - runs[:, 0])]
        if (end - begin) * hop >= SHORTEST_PAUSE_S:
            return (low + begin) * hop, (low + end) * hop
    middle = (pause.start + pause.end) / 2
    return middle, middle


def level(audio: np.ndarray) -> np.ndarray:
    """Scales to LEVEL_DBFS, measured where there is speech, and fades 5 ms at both ends."""
    energy = energies_db(audio)
    speech = energy[energy > energy.max() - 30]
    gain = 10 ** ((LEVEL_DBFS - 10 * np.log10(np.mean(10 ** (speech / 10)))) / 20)
    audio = audio * min(gain, PEAK / np.abs(audio).max())
    ramp = np.linspace(0, 1, HOP, dtype=np.float32)
    audio[:HOP] *= ramp
    audio[-HOP:] *= ramp[::-1]
    return audio


def encode(audio: np.ndarray, bitrate: int) -> tuple[bytes, int]:
    """Ogg Opus, mono, and the number of samples that it decodes to at 24 kHz."""
    buffer = io.BytesIO()
    lowest, highest = 6_000, 256_000  # what libsndfile's compression levels 1 and 0 stand for
    compression = 1 - (bitrate - lowest) / (highest - lowest)
    with soundfile.SoundFile(buffer, "w", SAMPLE_RATE, 1, "OPUS", format="OGG", compression_level=compression) as file:
        file.write(audio)
    data = buffer.getvalue()
    decoded, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    if rate != SAMPLE_RATE:
        raise RuntimeError(f"Opus decodes to {rate} Hz, wanted {SAMPLE_RATE}")
    return data, decoded.size


def _finish(opus: bytes, num_samples: int, words: list[str], segments: list[Segment]) -> Clip:
    duration_ms = num_samples * 1000 // SAMPLE_RATE

    def ms(seconds: float) -> int:
        return min(max(round(seconds * 1000), 0), duration_ms)

    segments = [s for s in segments if ms(s.end) > ms(s.start)]
    word_times = []
    for index, word in enumerate(words):
        own = [s for s in segments if s.word == index]
        if not own:
            raise ValueError(f"word {index} ({word!r}) of {' '.join(words)!r} has no phones")
        word_times.append((ms(own[0].start), ms(own[-1].end)))
    phones = [s.phone for s in segments]
    times = [(ms(s.start), ms(s.end)) for s in segments]
    if times[0][0] > 0:
        phones, times = ["pau", *phones], [(0, times[0][0]), *times]
    if times[-1][1] < duration_ms:
        phones, times = [*phones, "pau"], [*times, (times[-1][1], duration_ms)]
    return Clip(opus, num_samples, words, word_times, phones, times)
