"""What the codec hears besides the picture book: dictionary lines, each read once, in a blended voice of its own.

The picture book has 21 voices and 295 words. A codec that has heard no more reproduces those voices well and new ones
poorly; blends of many voices' styles and the whole language's sounds are what it lacks. Nothing else trains on them.
"""

import pathlib
import random

from data.picture_book import script, text, voices

ROLE = "reader"
DRAWN, CLIPS = 1_400, 1_092  # lines, and how many of them were spoken
CHARACTERS = range(24, 72)
SEED = 21


def plan(build_dir: pathlib.Path) -> list[script.Utterance]:
    """Lines of the text's training split in shuffled order, clip i in the voice `mix_i`."""
    lines = [
        line
        for line, source, split in text.all_lines(build_dir)
        if source == "wordnet" and split == "train" and len(line) in CHARACTERS
    ]
    rng = random.Random(SEED)
    return [
        script.Utterance(ROLE, "reading", f"{voices.BLEND}{i}", line, "", "", speed=rng.choice(script.SPEEDS))
        for i, line in enumerate(rng.sample(lines, DRAWN)[:CLIPS])
    ]
