"""The SentencePiece vocabulary: text to pieces, a word at a time, with the control tokens at their fixed ids."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from omni_jax.errors import UserError
from omni_jax.types import Control


class Tokenizer:
    """Encodes word by word, so that a word has the same pieces in running text and on the frame grid.

    Raises:
      UserError: no such file, or its control tokens are not where `Control` says.
    """

    def __init__(self, path: str | Path):
        if not Path(path).is_file():
            raise UserError(f"tokenizer {path} is not there: build the corpus, or set data.tokenizer to a spm.model")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise UserError(f"tokenizer {path} is not a SentencePiece model: {error}") from error
        self.vocab_size = self._processor.get_piece_size()
        reserved = max(Control) + 1
        plain = [i for i in range(min(reserved, self.vocab_size)) if not self._is_reserved(i)]
        if plain or self.vocab_size <= reserved:
            raise UserError(f"tokenizer {path}: ids 0 to {reserved - 1} must be control tokens, {plain} are not")
        self.encode_word = functools.lru_cache(maxsize=1 << 16)(self._encode_word)

    def _is_reserved(self, piece: int) -> bool:
        name = self._processor.id_to_piece(piece)
        return name.startswith("<") and name.endswith(">")

    def _encode_word(self, word: str) -> tuple[int, ...]:
        return tuple(self._processor.encode(word))

    def encode(self, text: str) -> list[int]:
        return [piece for word in text.split() for piece in self.encode_word(word)]

    def piece(self, token: int) -> str:
        """A token as the vocabulary writes it, with its mark for the start of a word."""
        return self._processor.id_to_piece(token)

    def decode(self, pieces: Sequence[int]) -> str:
        """The text of the pieces; control tokens are left out."""
        return self._processor.decode([int(piece) for piece in pieces if piece > max(Control)])


def load_tokenizer(path: str | Path, vocab_size: int) -> Tokenizer:
    """Raises UserError if the vocabulary is not of the size that the model was configured with."""
    tokenizer = Tokenizer(path)
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"tokenizer {path} has {tokenizer.vocab_size} pieces but model.vocab_size={vocab_size}: "
            f"set model.vocab_size={tokenizer.vocab_size}"
        )
    return tokenizer
