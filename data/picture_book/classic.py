"""flite and festival voices, with the segment times that both print."""

import io
import pathlib
import re
import subprocess
import tempfile

import numpy as np
import soundfile
import soxr

from data.picture_book.timing import SAMPLE_RATE, Segment

FESTIVAL_VOICES = {"festival_slt_hts": "voice_cmu_us_slt_arctic_hts", "festival_ked": "voice_ked_diphone"}
RESPELL = {"mm-hm": "um hum", "baa": "bah"}
_FESTIVAL = """
({voice})
(Parameter.set 'Duration_Stretch {stretch})
(set! utt (utt.synth (Utterance Text "{text}")))
(utt.save.wave utt "{path}" 'riff)
(mapcar (lambda (s) (format t "%s:%f " (item.name s) (item.feat s "segment_end"))) (utt.relation.items utt 'Segment))
"""


def speak(spoken: str, voice: str, speed: float = 1.0) -> tuple[np.ndarray, list[Segment]]:
    """Returns float32 samples at 24 kHz and the segments that cover them."""
    spoken = re.sub(r"[a-z]+(?:-[a-z]+)*", lambda m: RESPELL.get(m[0], m[0]), spoken)
    words = re.findall(r"[a-z]+(?:['-][a-z]+)*", spoken)
    audio, phones = _run(spoken, voice, speed)
    citation = [[p for p, _ in _run(word, voice, speed)[1] if p != "pau"] for word in words]
    owners = assign_words([p for p, _ in phones], citation)
    starts = [0.0] + [end for _, end in phones[:-1]]
    joined = _joined_words(words)
    return audio, [
        Segment(phone, start, end, joined[owner] if owner >= 0 else -1)
        for (phone, end), start, owner in zip(phones, starts, owners, strict=True)
    ]


def _joined_words(words: list[str]) -> list[int]:
    """Index in the transcript of each spoken word: "um hum" is one word of it."""
    index, result = -1, []
    for i, word in enumerate(words):
        index += not (word == "hum" and words[i - 1] == "um")
        result.append(index)
    return result


_cache: dict[tuple[str, str, float], tuple[np.ndarray, list[tuple[str, float]]]] = {}


def _run(text: str, voice: str, speed: float) -> tuple[np.ndarray, list[tuple[str, float]]]:
    """Audio and (phone, end in seconds). Single words are remembered: only their phones are asked for, many times."""
    key = (text, voice, speed)
    if key not in _cache:
        if " " not in text:
            _cache[key] = _synthesise(*key)
        return _cache.get(key) or _synthesise(*key)
    return _cache[key]


def _synthesise(text: str, voice: str, speed: float) -> tuple[np.ndarray, list[tuple[str, float]]]:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "clip.wav"
        if voice in FESTIVAL_VOICES:
            program = _FESTIVAL.format(voice=FESTIVAL_VOICES[voice], stretch=1 / speed, text=text, path=path)
            script = pathlib.Path(folder) / "say.scm"
            script.write_text(program)
            command = ["festival", "-b", str(script)]
        else:
            command = ["flite", "-voice", voice.removeprefix("flite_"), "--setf", f"duration_stretch={1 / speed:.3f}",
                       "-psdur", "-t", text, "-o", str(path)]  # fmt: skip
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        audio, rate = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32")
    phones = [(name, float(end)) for name, end in re.findall(r"([a-z]+):([\d.]+)", printed)]
    return soxr.resample(audio, rate, SAMPLE_RATE).astype(np.float32), phones


def assign_words(phones: list[str], citation: list[list[str]]) -> list[int]:
    """The word index of each phone (-1 for pauses): the cheapest edit alignment with the words' citation forms.

    Words differ from their citation form by a vowel or a dropped consonant, hence an alignment and not a count.
    """
    reference = [(p, w) for w, form in enumerate(citation) for p in form]
    spoken = [i for i, p in enumerate(phones) if p != "pau"]
    n, m = len(spoken), len(reference)
    cost = np.zeros((n + 1, m + 1))
    cost[:, 0], cost[0, :] = np.arange(n + 1), np.arange(m + 1)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            cost[i, j] = min(cost[i - 1, j - 1] + _distance(phones[spoken[i - 1]], reference[j - 1][0]),
                             cost[i - 1, j] + 1, cost[i, j - 1] + 1)  # fmt: skip
    owners, i, j = [-1] * len(phones), n, m
    while i > 0:
        match = j > 0 and cost[i, j] == cost[i - 1, j - 1] + _distance(phones[spoken[i - 1]], reference[j - 1][0])
        if match or j == 0 or cost[i, j] == cost[i - 1, j] + 1:
            owners[spoken[i - 1]] = reference[max(j - 1, 0)][1]
            i, j = i - 1, j - bool(match)
        else:
            j -= 1
    return owners


def _distance(a: str, b: str) -> float:
    vowels = "aeiou"
    return 0.0 if a == b else 0.4 if (a[0] in vowels) == (b[0] in vowels) else 1.5
