"""Trains a SentencePiece vocabulary on the text of some sources, with the project's control tokens at their ids.

python -m data.train_tokenizer --source=folder:my/folder --vocab_size=2000 --out=my/spm.model

Then train with --config.data.tokenizer=my/spm.model --config.model.vocab_size=2000.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from rich.progress import track

from omni_jax.errors import UserError, run_main
from omni_jax.input_pipeline.readers.address import open_reader
from omni_jax.input_pipeline.readers.record import BadRecord
from omni_jax.types import Control

MAX_SENTENCE_BYTES = 16_384


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, action="append", help="FORMAT:PATH, as in data.sources; repeatable")
    parser.add_argument("--vocab_size", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=1_000_000, help="from so many examples, chosen at random")
    parser.add_argument("--cased", action="store_true", help="keep upper case apart from lower case")
    args = parser.parse_args(arguments)
    texts = [text for source in args.source for text in read_texts(source, args.texts // len(args.source))]
    model = train(texts, args.vocab_size, args.cased)
    args.out.write_bytes(model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    sample = texts[:: max(1, len(texts) // 1000)]
    words, pieces = sum(len(text.split()) for text in sample), sum(len(processor.encode(text)) for text in sample)
    print(
        f"{args.out}: {processor.get_piece_size()} pieces, {pieces / max(1, words):.2f} a word, from {len(texts)} texts"
    )
    return 0


def read_texts(source: str, most: int) -> Iterator[str]:
    reader = open_reader("source", source)
    chosen = np.random.default_rng(0).permutation(len(reader))[:most]
    for index in track(np.sort(chosen), description=f"reading {source}"):
        try:
            record = reader[int(index)]
        except BadRecord:
            continue
        yield from (text for text in (*record.texts, record.reply) if text)
        yield from (text for turn in record.turns for text in turn.texts)


def train(texts: Sequence[str], vocab_size: int, cased: bool) -> bytes:
    """The serialised model. Raises UserError where the text has not so many pieces."""
    control = [f"<{token.name.lower()}>" for token in Control if token > Control.EOS]
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=0.9995,
            normalization_rule_name="nmt_nfkc" if cased else "nmt_nfkc_cf",
            byte_fallback=vocab_size >= 4096,
            max_sentence_length=MAX_SENTENCE_BYTES,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece="<pad>",
            user_defined_symbols=control,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(f"--vocab_size={vocab_size} does not fit this text: {error}") from None
    return model.getvalue()


if __name__ == "__main__":
    run_main(main)
