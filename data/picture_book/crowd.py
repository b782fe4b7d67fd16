"""Who else asks, murmurs and interrupts: the users' training lines again, each clip in a blended voice of its own.

Users of `speech` have 20 voices in training. A model that had heard users in these alone told their turns with an F1 of
.88, and those of new voices with .85 (docs/LOG.md).
"""

import random

from data.picture_book import script, voices

FIRST_VOICE = 10_000  # the readings have the blends below
SEED = 22
TAKES = {"stop": 24, "backchannel": 36, "side_talk": 12, "picture_question": 12, "greeting": 3, "fact_question": 2,
         "tell": 1}  # fmt: skip


def plan() -> list[script.Utterance]:
    """Every training line of these kinds as often as TAKES says, shuffled, clip i in the voice `mix_{10000 + i}`."""
    lines = {u.spoken: u for u in script.user_lines() if u.split == "train" and u.kind in TAKES}
    takes = [line for line in lines.values() for _ in range(TAKES[line.kind])]
    rng = random.Random(SEED)
    rng.shuffle(takes)
    return [
        line._replace(voice=f"{voices.BLEND}{FIRST_VOICE + i}", speed=rng.choice(script.SPEEDS), priority=0)
        for i, line in enumerate(takes)
    ]
