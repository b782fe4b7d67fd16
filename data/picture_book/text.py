"""The text of the corpus: short everyday glosses and examples of WordNet, and what the corpus itself says, as writing.

`python -m data.picture_book.text` writes `text.json` into the build folder: [text, source, split] each. Questions and
sentences that are held out in speech are in `test` here too.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import re

from data.picture_book import fetch, phrases, script

WORDNET_LINES = 15_000
WORDS = range(4, 15)
FREQUENT_WORDS = 5_000
TEST_SHARE = 0.04


def wordnet_lines(folder: pathlib.Path) -> list[str]:
    """Glosses and quoted examples in lower case that consist of frequent words, the most everyday ones first."""
    lines: dict[str, None] = {}
    for part in ("noun", "verb", "adj", "adv"):
        for row in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if " | " not in row:
                continue
            gloss = row.split(" | ", 1)[1]
            pieces = [gloss.split('"', 1)[0].split(";")[0], *re.findall(r'"([^"]+)"', gloss)]
            lines |= {text: None for text in map(_tidy, pieces) if len(text.split()) in WORDS}
    return _everyday(list(lines))


def _tidy(text: str) -> str:
    """Lower case, single spaces; "" if there is anything that is hardly said: digits, brackets, other signs."""
    text = " ".join(text.lower().split()).strip(" ;:,")
    return text if re.fullmatch(r"[a-z][a-z ,.'?!-]*[a-z.?!]", text) else ""


def _everyday(lines: list[str]) -> list[str]:
    counts = collections.Counter(w for line in lines for w in _words(line))
    rank = {word: i for i, (word, _) in enumerate(counts.most_common(FREQUENT_WORDS))}
    known = [line for line in lines if all(w in rank for w in _words(line))]
    return sorted(known, key=lambda line: (max(rank[w] for w in _words(line)), line))[:WORDNET_LINES]


def _words(line: str) -> list[str]:
    return re.findall(r"[a-z]+(?:['-][a-z]+)*", line)


def corpus_lines() -> list[tuple[str, str, str]]:
    """(text, source, split) of the transcripts and of the questions with their answers."""
    lines: dict[tuple[str, str], str] = {}
    spoken_replies = {u.text: u.spoken for u in script.assistant_replies()}

    def add(text: str, source: str, held: int) -> None:
        split = "test" if held else "train"
        lines[text, source] = "train" if lines.get((text, source)) == "train" else split

    for u in script.plan():
        add(u.spoken, "transcript", u.held_text)
        if u.reply == script.PICTURE:
            for noun in phrases.NOUNS:
                for reply in phrases.PICTURE_REPLIES:
                    answer = reply.format(a=script.with_article(noun))
                    held = int(hashlib.sha256(f"{u.spoken}{answer}".encode()).digest()[0] < 256 * TEST_SHARE)
                    add(f"user: {u.spoken} assistant: {answer}", "picture", held)
        elif u.reply:
            add(f"user: {u.spoken} assistant: {spoken_replies[u.reply]}", "dialogue", u.held_text)
    return [(text, source, split) for (text, source), split in lines.items()]


def all_lines(build_dir: pathlib.Path) -> list[tuple[str, str, str]]:
    """(text, source, split) of everything, WordNet split by a hash of the line."""
    lines = corpus_lines()
    for text in wordnet_lines(fetch.wordnet_dir(build_dir)):
        held = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") < TEST_SHARE * 2**32
        lines.append((text, "wordnet", "test" if held else "train"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build_dir", type=pathlib.Path, default=fetch.BUILD_DIR)
    args = parser.parse_args()
    lines = all_lines(args.build_dir)
    (args.build_dir / "text.json").write_text(json.dumps(lines, indent=0))
    for key, count in sorted(collections.Counter((source, split) for _, source, split in lines).items()):
        print(*key, count)


if __name__ == "__main__":
    main()
