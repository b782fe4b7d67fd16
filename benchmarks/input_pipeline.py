"""What a stage's batches are filled with and what they cost, on the sample corpus: one row a stage.

python -m benchmarks.input_pipeline [--size=tiny] [--stages=perceive,align,duplex] [--batches=30] [--data=KEY=VALUE,...]

Fill is the share of a budget that is real. Padded FLOPs are those that model_flops (omni_jax/training/model_flops.py)
counts for what is padding. CPU is that of this process, all threads, after the first batch, whose time stands apart;
the corpus is decoded before. Codes of speech are a stand-in (loudness): the codec's values cost nothing here.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np

from configs import align, duplex, perceive, pretrain
from omni_jax.config import Config
from omni_jax.input_pipeline.codes import CodeCache, build_code_cache
from omni_jax.input_pipeline.corpus import Source, load_speech
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.input_pipeline.shards import truncated_share
from omni_jax.input_pipeline.tokenizer import Tokenizer, read_tokenizer
from omni_jax.train import resolve
from omni_jax.training.model_flops import padded_flops
from omni_jax.types import FRAME_SPEECH_SAMPLES, LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ, Batch

STAGES = {"pretrain": pretrain, "perceive": perceive, "align": align, "duplex": duplex}
COLUMNS = ("positions", "audio_slots", "patches", "speech_positions", "segments")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--stages", default="pretrain,perceive,align,duplex")
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--data", default="", help="changes of the data group, as rows_per_pool=8,audio_slots=512")
    flags = parser.parse_args()
    print("| stage | " + " | ".join(f"{name} %" for name in COLUMNS) + " | padded FLOPs % | examples/batch | ", end="")
    print("truncated % | real positions/s | CPU ms/batch | CPU us/position | first batch s | state bytes |")
    print("|" + "---|" * (len(COLUMNS) + 9))
    for stage in flags.stages.split(","):
        settings = STAGES[stage].get_config(flags.size)
        for change in filter(None, flags.data.split(",")):
            name, value = change.split("=")
            settings.data[name] = type(settings.data[name])(value)
        config = resolve(settings)
        print(f"| {stage}:{flags.size} | " + " | ".join(measure(config, flags.batches)) + " |", flush=True)


def measure(config: Config, batches: int) -> list[str]:
    codes = stand_in_codes(config)
    vocab_size = Tokenizer(read_tokenizer(config.data.tokenizer)).vocab_size
    reading = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=vocab_size))
    load_speech(Source(config.data.corpus), "train", LISTEN_SAMPLE_RATE_HZ)
    began = time.perf_counter()
    loader = make_loader(reading, "train", codes)
    next(loader)
    first = time.perf_counter() - began
    wall, cpu = time.perf_counter(), time.process_time()
    fills, examples, real = [], 0, 0
    for _ in range(batches):
        batch = next(loader)
        fills.append(fill(batch))
        examples += int(batch.timeline.segment_ids.max(1).sum())
        real += np.count_nonzero(batch.timeline.segment_ids)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    state = loader.get_state()
    loader.close()
    mean = np.mean(fills, axis=0)
    padded = padded_flops(config, {f"fill/{name}": share for name, share in zip(COLUMNS, mean, strict=True)})
    values = [100 * share for share in mean] + [100 * padded]
    return [
        *(f"{value:.1f}" for value in values),
        f"{examples / batches:.0f}",
        f"{100 * truncated_share(state):.3f}",
        f"{real / wall:.0f}",
        f"{1000 * cpu / batches:.0f}",
        f"{1e6 * cpu / real:.1f}",
        f"{first:.2f}",
        f"{len(repr(state))}",
    ]


def fill(batch: Batch) -> np.ndarray:
    """Share of each budget that is real, in the order of COLUMNS; 0 of a budget of nothing."""
    media = batch.media
    used = (
        batch.timeline.segment_ids > 0,
        media.mel_segment_ids > 0,
        media.patch_segment_ids > 0,
        batch.speech_index >= 0,
        np.arange(media.ctc_labels.shape[1]) < media.mel_segment_ids.max(1, initial=0)[:, None],
    )
    return np.array([part.mean() if part.size else 0.0 for part in used])


def stand_in_codes(config: Config) -> CodeCache:
    """Codes of the assistant's clips that follow their loudness."""
    books, size = config.model.num_codebooks, config.model.codebook_size

    def encode(wav: np.ndarray) -> np.ndarray:
        frames = np.abs(wav.reshape(len(wav), -1, FRAME_SPEECH_SAMPLES)).mean(-1)
        return np.repeat(np.minimum(frames * size, size - 1).astype(np.int32)[..., None], books, axis=-1)

    clips = load_speech(Source(config.data.corpus), "train", SPEECH_SAMPLE_RATE_HZ)
    return build_code_cache({clip.id: clip.wav() for clip in clips if clip.role == "assistant"}, encode, "0" * 64)


if __name__ == "__main__":
    main()
