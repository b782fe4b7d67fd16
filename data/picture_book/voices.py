"""Who speaks: the assistant's voice, the users' voices, and which of those are held out for `test`.

Four Kokoro voices are left for a final check and must never enter the corpus: see RESERVED.
"""

import numpy as np

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


# Blends are new voices: weighted sums of the style vectors of three anchors. The languages that an anchor was recorded
# in differ, its sound is what counts. No held-out and no reserved voice is an anchor.
ANCHORS = (
    ASSISTANT, *KOKORO_TRAIN, "af_nicole", "am_adam", "am_santa",
    "ef_dora", "em_alex", "em_santa", "ff_siwis", "hf_alpha", "hf_beta", "hm_omega", "hm_psi", "if_sara", "im_nicola",
    "jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo", "pf_dora", "pm_alex", "pm_santa",
    "zf_xiaobei", "zf_xiaoni", "zf_xiaoxiao", "zf_xiaoyi", "zm_yunjian", "zm_yunxi", "zm_yunxia", "zm_yunyang",
)  # fmt: skip
BLEND = "mix_"
_REACH = 1.4  # above 1 a blend may lie somewhat outside the triangle of its anchors


def blend(voice: str) -> dict[str, float]:
    """The anchors of the blend `mix_NUMBER` and their weights, whose sum is 1: a pure function of the number."""
    rng = np.random.default_rng(int(voice.removeprefix(BLEND)))
    names = rng.choice(ANCHORS, 3, replace=False)
    weights = 1 / 3 + _REACH * (rng.dirichlet(np.ones(3)) - 1 / 3)
    return dict(zip(map(str, names), map(float, weights), strict=True))


def is_kokoro(voice: str) -> bool:
    """Whether the voice is one of Kokoro's, named like `af_heart`; the others name their engine first."""
    return not voice.startswith(("flite_", "festival_"))


def is_british(voice: str) -> bool:
    """Whether the voice takes British phonemes."""
    return voice.startswith("b")
