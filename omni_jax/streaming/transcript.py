"""Turns the sampled ids of the text stream into readable text, one frame at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from omni_jax.types import Control

_CONTROL_NAMES = {int(control): control.name for control in Control}
_WORD_START = "\u2581"  # SentencePiece's mark for a leading space


@runtime_checkable
class PieceVocabulary(Protocol):
    """What the text stream needs of a tokenizer. A byte piece reads <0xC3>, or <0xE282> for several bytes."""

    def id_to_piece(self, id: int) -> str: ...

    def is_byte(self, id: int) -> bool: ...


def control_name(text_id: int) -> str | None:
    """Name of a control token, None for a word piece."""
    return _CONTROL_NAMES.get(text_id)


class Transcript:
    """Streaming detokeniser: word pieces become text at once, byte pieces when their UTF-8 character is whole."""

    def __init__(self, vocabulary: PieceVocabulary) -> None:
        self._vocabulary = vocabulary
        self._bytes = bytearray()

    def push(self, text_id: int) -> str:
        """The text that this id adds; empty for a control token and inside a multi-byte character."""
        if control_name(text_id) is not None:
            return self._flush()
        piece = self._vocabulary.id_to_piece(text_id)
        if self._vocabulary.is_byte(text_id):
            self._bytes.extend(bytes.fromhex(piece[3:-1]))
            return self._whole_characters()
        return self._flush() + piece.replace(_WORD_START, " ")

    def text(self, text_ids: Iterable[int]) -> str:
        """All ids of a finished stream as one string without the leading space."""
        return ("".join(self.push(text_id) for text_id in text_ids) + self._flush()).strip()

    def _whole_characters(self) -> str:
        try:
            text = self._bytes.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                return ""
            text = self._bytes.decode("utf-8", errors="replace")
        self._bytes.clear()
        return text

    def _flush(self) -> str:
        text = self._bytes.decode("utf-8", errors="replace")
        self._bytes.clear()
        return text
