"""Trains the SentencePiece vocabulary of the corpus on its text and transcripts.

`python -m data.picture_book.tokenizer` reads `text.json`, writes `data/corpus/picture_book/spm.model`. Ids 0 to 3 are
<pad> <unk> <s> </s>; the control tokens follow in the order of CONTROL_TOKENS, <listen> being 4.
"""

import argparse
import io
import json
import pathlib

import sentencepiece

from data.picture_book import build, fetch, phrases, script

VOCAB_SIZE = 768
CONTROL_TOKENS = (
    "<listen>", "<wait>", "<epad>", "<speak>", "<interrupt>", "<backchannel>", "<end_of_turn>", "<asr>", "<tts>",
    "<caption>", "<answer>", "<frame_asr>", "<frame_tts>", "<dialogue>", "<image>", "<audio>",
)  # fmt: skip
TRANSCRIPT_WEIGHT = 6  # so that the few hundred spoken words become tokens of their own


def training_lines(build_dir: pathlib.Path) -> list[str]:
    """The training text once, every training transcript and class name TRANSCRIPT_WEIGHT times."""
    lines = [text for text, _, split in json.loads((build_dir / "text.json").read_text()) if split == "train"]
    spoken = [u.text for u in script.plan() if not u.held_text] + list(phrases.NOUNS)
    return lines + spoken * TRANSCRIPT_WEIGHT


def train(lines: list[str]) -> bytes:
    """The serialised model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc_cf",
        byte_fallback=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_piece="<pad>",
        user_defined_symbols=list(CONTROL_TOKENS),
        minloglevel=2,
    )
    return model.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build_dir", type=pathlib.Path, default=fetch.BUILD_DIR)
    parser.add_argument("--output", type=pathlib.Path, default=build.CORPUS_DIR / "picture_book" / "spm.model")
    args = parser.parse_args()
    args.output.write_bytes(train(training_lines(args.build_dir)))
    model = sentencepiece.SentencePieceProcessor(model_file=str(args.output))
    words = {w for u in script.plan() for w in u.text.split()}
    pieces = sum(len(model.encode(w)) for w in words) / len(words)
    print(f"{args.output}: {model.vocab_size()} pieces, {pieces:.2f} for each of {len(words)} spoken words")


if __name__ == "__main__":
    main()
