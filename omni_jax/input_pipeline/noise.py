"""The room and the line: background noise at a random level, gain, a telephone's band."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from omni_jax.input_pipeline import augment

Wav = Float[np.ndarray, "_N"]

SNR_DB = (8.0, 30.0)
GAIN_DB = (-12.0, 6.0)
NOISY_SHARE = 0.45
BABBLE_SHARE = 0.33
TELEPHONE_SHARE = 0.08
DIGITAL_SILENCE_SHARE = 0.1
REVERBERANT_SHARE = 0.1
REVERBERATION_S = (0.15, 0.6)
NETWORK_SHARE = 0.04
QUIET_ROOM_DBFS = -62.0
ROOM_DB = (-20.0, 4.0)  # against a quiet room


def vary_recording(rng: np.random.Generator, wav: Wav) -> Wav:
    """Sometimes in a room with reverberation, sometimes over a telephone network. Fills pauses: not for turn-taking."""
    kind = rng.random()
    if kind < REVERBERANT_SHARE:
        return augment.reverberate(rng, wav, rng.uniform(*REVERBERATION_S))
    if kind > 1.0 - NETWORK_SHARE:
        return augment.mu_law(augment.telephone(wav))
    return wav


def background(rng: np.random.Generator, num_samples: int, talkers: list[Wav]) -> Wav:
    """White, pink or (given recordings of talkers) babble noise of unit level."""
    if talkers and rng.random() < BABBLE_SHARE:
        return augment.babble(rng, talkers, num_samples)
    return augment.steady_noise(rng, num_samples)


def add_noise(rng: np.random.Generator, wav: Wav, snr_db: float, talkers: list[Wav]) -> Wav:
    """`snr_db` is against the level at which every utterance is played, not against this recording's mean."""
    level_dbfs = augment.SPEECH_LEVEL_DBFS - snr_db
    return wav + background(rng, len(wav), talkers) * np.float32(10.0 ** (level_dbfs / 20.0))


def add_background(rng: np.random.Generator, wav: Wav, talkers: list[Wav] | None = None) -> Wav:
    """What the microphone sends of a track at speaking level: noise, then gain, sometimes a telephone line."""
    room = rng.random()
    if room < NOISY_SHARE:
        wav = add_noise(rng, wav, rng.uniform(*SNR_DB), talkers or [])
    elif room < 1.0 - DIGITAL_SILENCE_SHARE:
        quiet_dbfs = QUIET_ROOM_DBFS + rng.uniform(*ROOM_DB)
        wav = add_noise(rng, wav, augment.SPEECH_LEVEL_DBFS - quiet_dbfs, [])
    wav = wav * np.float32(10.0 ** (rng.uniform(*GAIN_DB) / 20.0))
    if rng.random() < TELEPHONE_SHARE:
        wav = augment.telephone(wav)
    return np.clip(wav, -1.0, 1.0)
