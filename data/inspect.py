"""Shows examples as the model gets them: timelines in colour, text, spectrograms, pictures, sound.

python -m data.inspect --config=configs/align.py:tiny --num=8 --out=examples.html [--config.training.codec_from=CODEC]

`--split=test` shows held-out ones. Without a codec, tasks with own speech are left out, which is said.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.inspection.page import Decode, render
from data.inspection.shown import Shown, examples_of, of_every_task
from omni_jax.checkpoint import load_codec
from omni_jax.config import Config, resolve
from omni_jax.errors import UserError, run_main
from omni_jax.input_pipeline.loader import make_loader
from omni_jax.input_pipeline.tokenizer import load_tokenizer
from omni_jax.models import codec
from omni_jax.sound_frames import with_log_mel
from omni_jax.train import read_options
from omni_jax.training.speech_codes import load_or_build_code_cache
from omni_jax.types import Batch

USAGE = "--config=configs/<stage>.py:<size> --num=8 --out=examples.html"
SPEAKING_TASKS = ("tts", "frame_tts", "dialogue")
MAX_BATCHES = 8


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv if arguments is None else ["inspect", *arguments]
    values, options = read_options(arguments, USAGE, {"num": "8", "out": "examples.html", "split": "train"})
    config, out = resolve(values), Path(options["out"])
    if not options["num"].isdigit() or not int(options["num"]):
        raise UserError(f"--num={options['num']}: want how many examples to show, 1 or more")
    if not out.parent.is_dir():
        raise UserError(f"--out={out}: there is no directory {out.parent}")
    batches, examples, decode = read_batches(config, int(options["num"]), options["split"])
    tokenizer = load_tokenizer(config.data.tokenizer, config.model.vocab_size)
    chosen = of_every_task(examples, int(options["num"]))
    out.write_text(render(config, batches, len(examples), chosen, tokenizer, decode), encoding="utf-8")
    print(f"{len(chosen)} examples of {len({example.task for example in chosen})} tasks in {out}")
    return 0


def read_batches(config: Config, wanted: int, split: str) -> tuple[list[Batch], list[Shown], Decode | None]:
    """The first batches of the stream, until they hold enough examples, and how to make codes audible."""
    codes, decode = None, None
    if config.training.codec_from:
        saved, params = load_codec(config.training.codec_from)
        config = dataclasses.replace(config, codec=saved.codec)
        codes = load_or_build_code_cache(config, params, config.training.codec_from)

        def decode(codes: np.ndarray) -> np.ndarray:
            return np.asarray(codec.decode_codes(saved.codec, params, codes[None]))[0]
    else:
        config = without_own_speech(config)
    loader = make_loader(config, split, codes)
    batches: list[Batch] = []
    examples: list[Shown] = []
    while len(batches) < MAX_BATCHES and (len(examples) < 4 * wanted):
        batch = next(loader)
        batches.append(batch._replace(media=with_log_mel(batch.media, config.model.audio.num_mels)))
        examples += examples_of(batches[-1])
    loader.close()
    return batches, examples, decode


def without_own_speech(config: Config) -> Config:
    """The config without the tasks that need a codec; says which. Own sources bring their codes along."""
    left_out = [name for name in SPEAKING_TASKS if config.data.tasks.get(name) and not config.data.sources]
    if left_out:
        print(f"left out: {', '.join(left_out)}, which need --config.training.codec_from=CODEC")
    tasks = {name: share for name, share in config.data.tasks.items() if name not in left_out}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, tasks=tasks))


if __name__ == "__main__":
    run_main(main)
