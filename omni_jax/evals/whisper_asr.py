"""Recognition by a published Whisper that lies in a directory, computed here (`models/whisper.py`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import soxr
from jaxtyping import Bool, Float

from omni_jax.config import MeshConfig
from omni_jax.dsp import WHISPER_SAMPLES, log_mel_whisper
from omni_jax.errors import UserError
from omni_jax.input_pipeline.pieces import Pieces, read_pieces
from omni_jax.input_pipeline.tokenizer import read_tokenizer
from omni_jax.models.whisper import Decoding, transcribe
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.importing import load_model
from omni_jax.pretrained.tensor_files import read_json
from omni_jax.pretrained.whisper import WHISPER_WHOLE
from omni_jax.types import LISTEN_SAMPLE_RATE_HZ, SPEECH_SAMPLE_RATE_HZ

LANGUAGE = "<|en|>"


def load_whisper(directory: str | Path, max_new_tokens: int) -> Callable[[Float[np.ndarray, " N"]], str]:
    """24 kHz speech to English text: one greedy pass over each 30 s, without timestamps.

    Args:
        directory: config.json, generation_config.json, tokenizer.json and safetensors.

    Raises:
        UserError: a file is missing or damaged, or the model is no Whisper.
    """
    directory = Path(directory)
    mesh = make_mesh(MeshConfig(), jax.local_devices()[:1])
    model = load_model(directory, mesh, family=WHISPER_WHOLE)
    config = model.config
    decoding = decoding_rules(read_json(directory / "generation_config.json"), config.vocab_size)
    path = directory / "tokenizer.json"
    pieces = read_pieces(read_tokenizer(path), str(path))
    length = min(max_new_tokens, config.num_text_positions - len(decoding.prompt))

    def recognise(wav: Float[np.ndarray, " N"]) -> str:
        heard = soxr.resample(wav, SPEECH_SAMPLE_RATE_HZ, LISTEN_SAMPLE_RATE_HZ).astype(np.float32)
        texts = []
        for start in range(0, len(heard), WHISPER_SAMPLES):
            mel = log_mel_whisper(heard[None, start : start + WHISPER_SAMPLES], config.encoder.num_mels)
            ids = transcribe(config, model.params, jnp.asarray(mel), decoding, length)[0]
            texts.append(_text(np.asarray(ids), int(decoding.end), pieces))
        return " ".join(texts)

    return recognise


def decoding_rules(values: dict[str, Any], vocab_size: int) -> Decoding:
    """From generation_config.json. Raises UserError where it does not say how to begin and end."""
    try:
        prompt = [values["decoder_start_token_id"]]
        if values.get("is_multilingual", "lang_to_id" in values):
            prompt += [values["lang_to_id"][LANGUAGE], values["task_to_id"]["transcribe"]]
        prompt.append(values["no_timestamps_token_id"])
        end = values["eos_token_id"]
    except (KeyError, TypeError) as error:
        raise UserError(f"generation_config.json: has no {error}: take the file that lies beside the weights") from None
    suppressed, first = (values.get(name) or [] for name in ("suppress_tokens", "begin_suppress_tokens"))
    return Decoding(
        jnp.asarray(prompt, jnp.int32),
        jnp.asarray(end, jnp.int32),
        jnp.asarray(_mask(suppressed, vocab_size)),
        jnp.asarray(_mask(first, vocab_size)),
    )


def _mask(ids: list[int], size: int) -> Bool[np.ndarray, " V"]:
    mask = np.zeros(size, bool)
    mask[[i for i in ids if 0 <= i < size]] = True
    return mask


def _text(ids: np.ndarray, end: int, pieces: Pieces) -> str:
    """Everything from the end token on in the vocabulary is a mark."""
    return b"".join(pieces.piece_bytes(int(i)) for i in ids if i < end).decode(errors="replace").strip()
