"""Vocabularies: pieces, and the bytes that each adds to a text. SentencePiece, Hugging Face's JSON, bytes alone."""

from __future__ import annotations

import json
from typing import Any, Protocol

import sentencepiece

from omni_jax.errors import UserError

BYTES = b"bytes"  # in place of a file
_SPACE = "\u2581"  # stands for a space in SentencePiece's pieces


class Pieces(Protocol):
    """Ids are the file's own."""

    num_pieces: int

    def encode(self, text: str) -> list[int]: ...

    def piece_bytes(self, piece: int) -> bytes:
        """UTF-8; one piece may be a part of a character. Nothing for pieces that stand for no text."""


def read_pieces(model: bytes, name: str) -> Pieces:
    """Raises UserError for bytes that are neither format; `name` is the file's in the message."""
    if model == BYTES:
        return BytePieces()
    return HubPieces(model, name) if model.lstrip()[:1] == b"{" else SentencePieces(model, name)


class BytePieces:
    """The 256 bytes of UTF-8, without a file: every language, long texts."""

    num_pieces = 256

    def encode(self, text: str) -> list[int]:
        return list(f" {text}".encode())

    def piece_bytes(self, piece: int) -> bytes:
        return bytes([piece])


class SentencePieces:
    """A SentencePiece model (arXiv 1808.06226)."""

    def __init__(self, model: bytes, name: str):
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, OSError) as error:
            raise UserError(f"tokenizer {name} is not a SentencePiece model: {error}") from error
        self.num_pieces = self._processor.get_piece_size()

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def piece_bytes(self, piece: int) -> bytes:
        text = self._processor.id_to_piece(piece)
        if self._processor.is_byte(piece):
            return bytes.fromhex(text[3:-1])
        return b"" if self._processor.is_control(piece) else text.replace(_SPACE, " ").encode()

    def is_reserved(self, piece: int) -> bool:
        """Whether a piece stands for something else than text, as those of this project's control tokens do."""
        text = self._processor.id_to_piece(piece)
        return text.startswith("<") and text.endswith(">") and not self._processor.is_byte(piece)


class HubPieces:
    """A `tokenizer.json`: byte-level (GPT-2, Llama 3, Qwen) or with SentencePiece's marks (Llama 2, Mixtral)."""

    def __init__(self, model: bytes, name: str):
        try:
            import tokenizers
        except ImportError:
            raise UserError(f"tokenizer {name} needs a package: pip install tokenizers") from None
        try:
            text = model.decode("utf-8")
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
            values = json.loads(text)
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(f"tokenizer {name} is no tokenizer.json: {error}") from None
        self.num_pieces = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self._byte_level = "ByteLevel" in _types(values.get("decoder"))
        if not self._byte_level and not {"Metaspace", "ByteFallback"} & _types(values.get("decoder")):
            raise UserError(f"tokenizer {name}: its decoder is neither byte-level nor SentencePiece's: not supported")
        added = values.get("added_tokens", [])
        self._added = {entry["id"]: b"" if entry["special"] else entry["content"].encode() for entry in added}
        # Some add the space before a word themselves, some want it written.
        self._lead = "" if self._bytes_of("a").startswith(b" ") else " "

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(self._lead + text, add_special_tokens=False).ids

    def encode_marked(self, text: str) -> list[int]:
        """As it stands; special tokens that are written out become themselves."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def piece_bytes(self, piece: int) -> bytes:
        if piece in self._added:
            return self._added[piece]
        text = self._tokenizer.id_to_token(piece)
        if text is None:  # ids may have gaps
            return b""
        if self._byte_level:
            return bytes(_BYTE_OF[character] for character in text)
        if len(text) == 6 and text.startswith("<0x"):
            return bytes.fromhex(text[3:-1])
        return text.replace(_SPACE, " ").encode()

    def _bytes_of(self, text: str) -> bytes:
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return b"".join(self.piece_bytes(piece) for piece in ids)


def _types(part: Any) -> set[str]:
    """The types of a component of a tokenizer.json and of everything in it."""
    if isinstance(part, list):
        return set().union(*map(_types, part))
    if not isinstance(part, dict):
        return set()
    own = {part["type"]} if isinstance(part.get("type"), str) else set()
    return own.union(*map(_types, part.values()))


def _characters_of_bytes() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 bytes are their own characters, the others follow from U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _characters_of_bytes()
