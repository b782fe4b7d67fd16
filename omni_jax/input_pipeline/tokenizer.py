"""Text to ids, a word at a time, with the control tokens at their fixed ids: own vocabularies and published ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from omni_jax.errors import UserError
from omni_jax.input_pipeline.pieces import BYTES, SentencePieces, read_pieces
from omni_jax.types import Control

NUM_CONTROL = len(Control)
MAX_TOKENIZER_BYTES = 100_000_000


class Tokenizer:
    """Encodes word by word, so that a word has the same pieces in running text and on the frame grid.

    A vocabulary that this project trained begins with the control tokens. A published one does not: its piece i is id
    `NUM_CONTROL` + i, as `pretrained assemble` has it. `published` says which one it is.

    Raises:
      UserError: a file that is neither a SentencePiece model nor a tokenizer.json of a kind that is supported.
    """

    def __init__(self, model: bytes, name: str = "tokenizer"):
        self._pieces = read_pieces(model, name)
        self.published = not _begins_with_control_tokens(self._pieces)
        self._offset = NUM_CONTROL if self.published else 0
        self.vocab_size = self._offset + self._pieces.num_pieces
        self.encode_word = functools.lru_cache(maxsize=1 << 16)(self._encode_word)

    def _encode_word(self, word: str) -> tuple[int, ...]:
        return tuple(piece + self._offset for piece in self._pieces.encode(word))

    def encode(self, text: str) -> list[int]:
        return [piece for word in text.split() for piece in self.encode_word(word)]

    def encode_marked(self, text: str) -> list[int]:
        """A rendered chat, with the special tokens that it names. Only of a tokenizer.json."""
        return [piece + self._offset for piece in self._pieces.encode_marked(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the pieces, without the space before the first; control tokens are left out."""
        return b"".join(self._bytes(int(i)) for i in ids if i >= NUM_CONTROL).decode(errors="replace").removeprefix(" ")

    def id_to_piece(self, id: int) -> str:
        """As SentencePiece writes pieces: a space as U+2581, what is no whole character as <0x..> in hexadecimal."""
        data = self._bytes(id)
        return f"<0x{data.hex()}>" if self.is_byte(id) else data.decode().replace(" ", "\u2581")

    def is_byte(self, id: int) -> bool:
        try:
            self._bytes(id).decode()
        except UnicodeDecodeError:
            return True
        return False

    def _bytes(self, id: int) -> bytes:
        piece = id - self._offset
        return self._pieces.piece_bytes(piece) if 0 <= piece < self._pieces.num_pieces else b""


def _begins_with_control_tokens(pieces: object) -> bool:
    if not isinstance(pieces, SentencePieces) or pieces.num_pieces <= NUM_CONTROL:
        return False
    return all(pieces.is_reserved(piece) for piece in range(NUM_CONTROL))


def read_tokenizer(path: str | Path) -> bytes:
    """The file of a vocabulary; for `bytes` the word alone. Raises UserError for none, or an oversized one."""
    path = Path(path)
    if str(path).encode() == BYTES:
        return BYTES
    if not path.is_file():
        raise UserError(
            f"tokenizer {path} is not there: build the corpus, or set data.tokenizer to a spm.model, a tokenizer.json "
            "or the word bytes"
        )
    if path.stat().st_size > MAX_TOKENIZER_BYTES:
        raise UserError(f"tokenizer {path} has {path.stat().st_size} bytes: is it the right file?")
    return path.read_bytes()


def load_tokenizer(path: str | Path, vocab_size: int) -> Tokenizer:
    """Raises UserError if the vocabulary does not fit the model; a published model may have more rows than pieces."""
    tokenizer = Tokenizer(read_tokenizer(path), str(path))
    if tokenizer.published and tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"tokenizer {path} has {tokenizer.vocab_size} pieces with the {NUM_CONTROL} control tokens but "
            f"model.vocab_size={vocab_size}: assemble the model (python -m omni_jax.pretrained assemble), or give the "
            "tokenizer that belongs to it"
        )
    if not tokenizer.published and tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"tokenizer {path} has {tokenizer.vocab_size} pieces but model.vocab_size={vocab_size}: "
            f"set model.vocab_size={tokenizer.vocab_size}"
        )
    return tokenizer
