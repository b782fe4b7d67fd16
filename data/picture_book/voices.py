"""Who speaks: the assistant's voice, the users' voices, and which of those are held out for `test`.

Four Kokoro voices are left for a final check and must never enter the corpus: see RESERVED.
"""

RESERVED = ("af_bella", "am_fenrir", "bf_lily", "bm_fable")
ASSISTANT = "af_heart"

KOKORO_TRAIN = (
    "af_alloy", "af_aoede", "af_jessica", "af_river", "af_sarah", "af_sky",
    "am_echo", "am_eric", "am_liam", "am_onyx", "am_puck",
    "bf_alice", "bf_isabella", "bm_daniel", "bm_lewis",
)  # fmt: skip
KOKORO_HELD = ("af_kore", "af_nova", "am_michael", "bf_emma", "bm_george")

# Diphone and statistical voices: cheap variety. `flite_awb` is a Scottish, `festival_ked` an American male speaker.
CLASSIC_TRAIN = ("flite_slt", "flite_rms", "flite_kal16", "festival_slt_hts", "festival_ked")
CLASSIC_HELD = ("flite_awb",)

TRAIN = KOKORO_TRAIN + CLASSIC_TRAIN
HELD = KOKORO_HELD + CLASSIC_HELD


def is_kokoro(voice: str) -> bool:
    """Whether the voice is one of Kokoro's, named like `af_heart`; the others name their engine first."""
    return not voice.startswith(("flite_", "festival_"))


def is_british(voice: str) -> bool:
    """Whether the voice takes British phonemes."""
    return voice.startswith("b")
