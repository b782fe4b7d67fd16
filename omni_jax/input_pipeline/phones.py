"""Phones by time: which one sounds in every 20 ms, as a target for the audio encoder and for the speech codec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from omni_jax.input_pipeline.corpus import Span, SpeechClip
from omni_jax.types import ABSENT

PHONE_MS = 20.0  # 50 Hz
SILENCE, SILENCE_PHONE = "pau", 0


def phone_inventory(clips: Iterable[SpeechClip], num_phones: int) -> dict[str, int]:
    """Phone -> id: silence 0, then the most frequent first; the rarest are left out where there are too many."""
    counts = Counter(phone.text for clip in clips for phone in clip.phones if phone.text != SILENCE)
    ranked = sorted(counts, key=lambda phone: (-counts[phone], phone))
    return {phone: number for number, phone in enumerate([SILENCE, *ranked[: num_phones - 1]])}


def phone_track(
    phones: Sequence[Span], count: int, start_ms: float, inventory: Mapping[str, int]
) -> Int[np.ndarray, "N"]:
    """The phone ids of `count` frames of 20 ms, for spans that count from `start_ms` on; silence around them.

    ABSENT where a phone is not in the inventory, and everywhere when there are no spans.
    """
    if not phones:
        return np.full(count, ABSENT, np.int32)
    track = np.full(count, SILENCE_PHONE, np.int32)
    write_phones(track, phones, start_ms, inventory)
    return track


def write_phones(
    track: Int[np.ndarray, "N"], phones: Sequence[Span], start_ms: float, inventory: Mapping[str, int]
) -> None:
    """Writes spans that count from `start_ms` on into a track of 20 ms frames."""
    for phone in phones:
        first, last = (round((start_ms + ms) / PHONE_MS) for ms in (phone.start_ms, phone.end_ms))
        track[max(first, 0) : max(last, 0)] = inventory.get(phone.text, ABSENT)
