"""Kokoro-82M through ONNX runtime, with the durations that its predictor gave to every phoneme.

The published graph returns audio alone. Its duration predictor ends in `/encoder/Clip`; that tensor is added to the
outputs, so that word and phone timings are the synthesiser's own, on its grid of 25 ms.
"""

import functools
import json
import pathlib

import numpy as np
import onnx
import onnxruntime

from data.picture_book import lexicon, voices
from data.picture_book.timing import SAMPLE_RATE, Segment

FRAME_SAMPLES = 600
DURATIONS = "/encoder/Clip_output_0"


class Kokoro:
    """Speaks with any of the voices in `voice_dir`; one thread, so that several processes do not fight."""

    def __init__(self, model_path: pathlib.Path, vocab_path: pathlib.Path, voice_dir: pathlib.Path):
        model = onnx.load(str(model_path))
        model.graph.output.append(onnx.helper.make_tensor_value_info(DURATIONS, onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._vocab = json.loads(vocab_path.read_text(encoding="utf-8"))["vocab"]
        self._voice_dir = voice_dir
        self._style = functools.cache(self._load_style)

    def _load_style(self, voice: str) -> np.ndarray:
        if voice.startswith(voices.BLEND):
            return sum(weight * self._style(anchor) for anchor, weight in voices.blend(voice).items())
        return np.fromfile(self._voice_dir / f"{voice}.bin", np.float32).reshape(-1, 256)

    def speak(self, spoken: str, voice: str, speed: float = 1.0) -> tuple[np.ndarray, list[Segment]]:
        """Returns float32 samples at 24 kHz and the segments that cover them."""
        symbols, owners = _symbols(lexicon.sentence_phonemes(spoken, voices.is_british(voice)))
        tokens = [0, *(self._vocab[s] for s in symbols), 0]
        style = self._style(voice)
        inputs = {
            "tokens": np.array([tokens], np.int64),
            "style": style[len(symbols) - 1][None],
            "speed": np.array([speed], np.float32),
        }
        audio, durations = self._session.run(["audio", DURATIONS], inputs)
        audio, durations = audio.ravel().astype(np.float32), durations.ravel()
        if int(durations.sum()) * FRAME_SAMPLES != audio.size:
            raise RuntimeError(f"durations sum to {durations.sum()} frames, audio has {audio.size} samples")
        return audio, segments(symbols, owners, durations)


def _symbols(words: list[tuple[str, str]]) -> tuple[str, list[int]]:
    """The phoneme string, and for each symbol its word's index, -1 for spaces and punctuation."""
    symbols, owners = "", []
    for i, (phonemes, mark) in enumerate(words):
        space = " " if i + 1 < len(words) else ""
        symbols += phonemes + mark + space
        owners += [i] * len(phonemes) + [-1] * len(mark + space)
    return symbols, owners


def segments(symbols: str, owners: list[int], durations: np.ndarray) -> list[Segment]:
    """Phones with times. Marks of stress and length join their vowel; a bare space is shared by its neighbours."""
    frame = FRAME_SAMPLES / SAMPLE_RATE
    ends = np.cumsum(durations) * frame
    result = [Segment("pau", 0.0, float(ends[0]), -1)]
    for i, (symbol, owner) in enumerate(zip(symbols, owners, strict=True)):
        start, end = float(ends[i]), float(ends[i + 1])
        if owner < 0 and symbol == " " and symbols[i - 1] not in ".,?!":
            middle = (start + end) / 2
            result[-1] = result[-1]._replace(end=middle)
            result.append(Segment("", middle, end, owners[i + 1]))
        elif owner < 0:
            result.append(Segment("pau", start, end, -1))
        elif symbol in "ˈˌ":
            result.append(Segment("", start, end, owner))
        elif symbol == "ː":
            result[-1] = result[-1]._replace(end=end)
        else:
            result.append(Segment(lexicon.ARPABET[symbol], start, end, owner))
    result.append(Segment("pau", float(ends[-2]), float(ends[-1]), -1))
    return _merge(result)


def _merge(parts: list[Segment]) -> list[Segment]:
    """Joins nameless parts to the phone after them, adjacent pauses, and vowel + r to `er` as the other engines do."""
    result: list[Segment] = []
    start = None
    for part in parts:
        if not part.phone:
            start = part.start if start is None else start
            continue
        part = part if start is None else part._replace(start=start)
        start = None
        last = result[-1] if result else None
        if last and last.phone == part.phone == "pau":
            result[-1] = last._replace(end=part.end)
        elif last and part.phone == "r" and last.phone in ("ax", "er") and last.word == part.word:
            result[-1] = Segment("er", last.start, part.end, part.word)
        else:
            result.append(part)
    return result
