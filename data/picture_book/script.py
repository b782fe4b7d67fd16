"""The script of the corpus: every utterance that is to be spoken, with its voice, split and reply.

`python -m data.picture_book.script` prints the counts; `--list` prints every line. The plan is a pure function of
`phrases.py`, `voices.py` and SEED, so that the speech step can be interrupted and resumed, and checked by tests.

What is held out for `test`:
- voices: `voices.HELD` speak in `test` only, and every user clip of `test` has one of them;
- facts and stories: one template of each slot, another one from slot to slot, so that every template and every
  slot is heard in training, but not this combination of both;
- sentences to repeat: HELD_SENTENCES of them, made of words that training has;
- a few ways to say stop and to talk to someone else. Questions about a picture are the same in both splits: there the
  picture is what is held out.
"""

import argparse
import collections
import hashlib
import random
import re
from typing import NamedTuple

from data.picture_book import phrases, voices

SEED = 20
TRAIN_SENTENCES = 400
HELD_SENTENCES = 50
PICTURE = "{picture}"  # the reply depends on the picture that is shown
SPEEDS = (0.9, 1.0, 1.1, 1.2)


class Utterance(NamedTuple):
    """One clip to be synthesised. `reply` is normalised text, "" for none, or PICTURE."""

    role: str
    kind: str
    voice: str
    spoken: str
    template: str
    slot: str
    reply: str = ""
    split: str = "train"
    held_voice: int = 0
    held_text: int = 0
    speed: float = 1.0
    priority: int = 0  # the speech step works in this order, so that a partial corpus is a balanced one

    @property
    def text(self) -> str:
        return normalise(self.spoken)

    @property
    def id(self) -> str:
        key = f"{self.role}|{self.voice}|{self.speed}|{self.spoken}"
        return f"{self.role[0]}{hashlib.sha256(key.encode()).hexdigest()[:10]}"


def normalise(spoken: str) -> str:
    """Lower-case words separated by single spaces; apostrophes and hyphens inside words are kept."""
    return " ".join(re.findall(r"[a-z]+(?:['-][a-z]+)*", spoken.lower()))


def with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def sentences(rng: random.Random) -> tuple[list[str], list[str]]:
    """Distinct sentences of the grammar, as (train, held); every word of a held one occurs in a training one."""
    made: list[str] = []
    while len(made) < TRAIN_SENTENCES + HELD_SENTENCES:
        sentence = _sentence(rng, phrases.SENTENCES[len(made) % len(phrases.SENTENCES)])
        if sentence not in made:
            made.append(sentence)
    train, held = made[:TRAIN_SENTENCES], made[TRAIN_SENTENCES:]
    missing = {w for s in held for w in normalise(s).split()} - {w for s in train for w in normalise(s).split()}
    if missing:
        raise ValueError(f"held-out sentences have words that training lacks: {sorted(missing)}; change SEED")
    return train, held


def _sentence(rng: random.Random, frame: str) -> str:
    things = iter(rng.sample(phrases.THINGS, 2))
    adjective = rng.choice(phrases.ADJECTIVES)
    choices = {"animal": phrases.ANIMALS, "verb": phrases.VERBS, "place": phrases.PLACES,
               "person": phrases.PEOPLE, "action": phrases.ACTIONS}  # fmt: skip

    def fill(match: re.Match) -> str:
        name = match.group(1)
        if name in choices:
            return rng.choice(choices[name])
        return {"thing": lambda: next(things), "adjective": lambda: adjective,
                "a adjective": lambda: with_article(adjective)}[name]()  # fmt: skip

    return re.sub(r"\{([^}]+)\}", fill, frame)


class _Casting:
    """Deals voices in turn, so that each voice gets as many lines of each kind as every other."""

    def __init__(self, rng: random.Random):
        self._rng = rng
        self._decks: dict[tuple[str, ...], list[str]] = collections.defaultdict(list)

    def deal(self, cast: tuple[str, ...]) -> str:
        if not self._decks[cast]:
            self._decks[cast] = self._rng.sample(cast, len(cast))
        return self._decks[cast].pop()

    def speed(self) -> float:
        return self._rng.choice(SPEEDS)


def assistant_replies() -> list[Utterance]:
    """Every reply once, in the assistant's voice."""
    train, held = sentences(random.Random(SEED))
    lines: dict[str, Utterance] = {}

    def add(spoken, template, slot, split="train", priority=1):
        text = normalise(spoken)
        if text not in lines:
            lines[text] = Utterance("assistant", "reply", voices.ASSISTANT, spoken, template, slot,
                                    split=split, held_text=int(split == "test"), priority=priority)  # fmt: skip

    for noun in phrases.NOUNS:
        for template in phrases.PICTURE_REPLIES:
            add(template.format(a=with_article(noun)), template, noun, priority=0)
    for family, (_, reply, pairs) in phrases.FACTS.items():
        for slot, answer in pairs:
            add(reply.format(x=slot, y=answer), f"fact/{family}", slot, priority=0)
    for _, reply in phrases.GREETINGS:
        add(reply, "greeting", reply, priority=0)
    for slot, reply in (phrases.TELL | phrases.DO).items():
        add(reply, "tell", slot, priority=0)
    for sentence in held:
        add(sentence, "repeat", sentence, "test")
    for sentence in train:
        add(sentence, "repeat", sentence, priority=2)
    return list(lines.values())


class _Line(NamedTuple):
    kind: str
    spoken: str
    template: str
    slot: str
    reply: str
    held: bool  # this text is heard in `test` only
    both: bool = False  # this text is heard in both splits


def _fact_lines() -> list[_Line]:
    lines = []
    for templates, reply, pairs in phrases.FACTS.values():
        for i, (slot, answer) in enumerate(pairs):
            for j, template in enumerate(templates):
                lines.append(_Line("fact_question", template.format(x=slot), template, slot,
                                   normalise(reply.format(x=slot, y=answer)), i % len(templates) == j))  # fmt: skip
    return lines


def _tell_lines() -> list[_Line]:
    lines = []
    for templates, table in ((phrases.TELL_TEMPLATES, phrases.TELL), (phrases.DO_TEMPLATES, phrases.DO)):
        for i, (slot, reply) in enumerate(table.items()):
            for j, template in enumerate(templates):
                lines.append(_Line("tell", template.format(x=slot), template, slot, normalise(reply),
                                   i % len(templates) == j))  # fmt: skip
    return lines


def _repeat_lines() -> list[_Line]:
    train, held = sentences(random.Random(SEED))
    lines = []
    for group, is_held in ((train, False), (held, True)):
        for i, sentence in enumerate(group):
            template = phrases.REPEAT_TEMPLATES[i % len(phrases.REPEAT_TEMPLATES)]
            mark = sentence.rstrip(".") + ("?" if template.startswith("can") else ".")
            lines.append(_Line("repeat_request", template.format(x=mark), template, sentence,
                               normalise(sentence), is_held))  # fmt: skip
    return lines


def _short_lines() -> list[_Line]:
    lines = [_Line("picture_question", s, s, "", PICTURE, False, True) for s in phrases.PICTURE_QUESTIONS]
    lines += [_Line("greeting", s, s, "", normalise(reply), False, True) for s, reply in phrases.GREETINGS]
    lines += [_Line("backchannel", s, s, "", "", False, True) for s in phrases.BACKCHANNELS]
    for kind, seen, held in (("stop", phrases.STOPS, phrases.HELD_STOPS),
                             ("side_talk", phrases.SIDE_TALK, phrases.HELD_SIDE_TALK)):  # fmt: skip
        lines += [_Line(kind, s, s, "", "", False) for s in seen] + [_Line(kind, s, s, "", "", True) for s in held]
    return lines


# How many voices say each line: kind -> (Kokoro, classic) voices in training, and the same in test.
TAKES = {
    "picture_question": ((10, 5), (5, 1)),
    "greeting": ((3, 2), (1, 1)),
    "stop": ((8, 5), (5, 1)),
    "backchannel": ((10, 4), (5, 1)),
    "side_talk": ((2, 3), (4, 1)),
    "fact_question": ((1, 1), (1, 1)),
    "tell": ((1, 2), (2, 1)),
    "repeat_request": ((0.5, 1), (1, 0.4)),
}


def user_lines() -> list[Utterance]:
    """Every utterance of a user, cast over the voices."""
    rng = random.Random(SEED + 1)
    casting = _Casting(rng)
    result: dict[str, Utterance] = {}
    for line in _short_lines() + _fact_lines() + _tell_lines() + _repeat_lines():
        for split in ("train", "test"):
            if not line.both and line.held != (split == "test"):
                continue
            casts = (voices.KOKORO_TRAIN, voices.CLASSIC_TRAIN) if split == "train" else (
                voices.KOKORO_HELD, voices.CLASSIC_HELD)  # fmt: skip
            for cast, takes in zip(casts, TAKES[line.kind][split == "test"], strict=True):
                count = int(takes) + (rng.random() < takes % 1)
                for _ in range(count):
                    utterance = _cast(line, split, casting.deal(cast), casting.speed())
                    result[utterance.id] = utterance
    return list(result.values())


def _cast(line: _Line, split: str, voice: str, speed: float) -> Utterance:
    priority = 3 if line.kind == "repeat_request" and split == "train" else 1
    return Utterance("user", line.kind, voice, line.spoken, line.template, line.slot, line.reply, split,
                     int(split == "test"), int(line.held), speed, priority)  # fmt: skip


def plan() -> list[Utterance]:
    """All utterances, by priority, shuffled within one, so that any prefix is balanced."""
    utterances = assistant_replies() + user_lines()
    random.Random(SEED + 2).shuffle(utterances)
    return sorted(utterances, key=lambda u: u.priority)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print every utterance, not only the counts")
    args = parser.parse_args()
    utterances = plan()
    if args.list:
        for u in utterances:
            print(u.id, u.split, u.kind, u.voice, u.spoken, "->", u.reply, sep="\t")
    counts = collections.Counter((u.role, u.kind, u.split, voices.is_kokoro(u.voice)) for u in utterances)
    for (role, kind, split, kokoro), count in sorted(counts.items()):
        print(f"{role:10} {kind:18} {split:6} {'kokoro' if kokoro else 'classic':8} {count:5}")
    print(f"{len(utterances)} utterances, {len({w for u in utterances for w in u.text.split()})} different words")


if __name__ == "__main__":
    main()
