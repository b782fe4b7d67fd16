"""Words to phonemes for Kokoro, and every synthesiser's phone names to one inventory.

Words are looked up one by one with espeak-ng, not sentence by sentence: espeak joins short words ("in the"), and the
corpus needs to know where each word ends. What that loses, the weak forms, is written down below.
"""

import functools
import re
import subprocess

# Said without stress unless they end a phrase.
UNSTRESSED = frozenset(
    ("a", "an", "the", "and", "or", "of", "to", "in", "on", "at", "by", "it", "is", "are", "am", "i", "we", "you", "he",
     "they", "my", "me", "us", "your", "has", "have", "does", "do", "did", "for", "from", "with", "this", "that", "be",
     "so", "can", "not", "up")
)  # fmt: skip
WEAK_FORMS = {"a": "ɐ", "an": "ən", "to": "tə", "and": "ænd"}
WEAK_FORMS_BRITISH = WEAK_FORMS | {"and": "and"}
SPECIAL = {"mm-hm": "əmhˈəm", "uh-huh": "ʌhˈʌ", "yeah": "jˈæ", "of": "ʌv", "from": "fɹˈʌm", "close": "klˈOz",
           "woof": "wˈʊf"}  # fmt: skip

# espeak-ng's IPA (with tied diphthongs) to the symbols Kokoro was trained with, after misaki's espeak table.
_COMMON = (
    ("e^ɪ", "A"), ("a^ɪ", "I"), ("a^ʊ", "W"), ("ɔ^ɪ", "Y"), ("t^ʃ", "ʧ"), ("d^ʒ", "ʤ"), ("ə^l", "ᵊl"), ("a^ɪ^ə", "Iə"),
    ("g", "ɡ"), ("r", "ɹ"), ("ʔ", "t"),
)  # fmt: skip
_AMERICAN = (("o^ʊ", "O"), ("ɜː", "ɜɹ"), ("ɚ", "əɹ"), ("oː", "ɔ"), ("ɾ", "T"), ("ː", ""), ("ɪ^ə", "iə"), ("^", ""))
_BRITISH = (("ə^ʊ", "Q"), ("o^ʊ", "Q"), ("e^ə", "ɛː"), ("ɛ^ə", "ɛː"), ("ɪ^ə", "ɪə"), ("^", ""))

_VOWELS = "AIOQWYaiuæɑɒɐɔəɚɛɜɪʊʌᵊᵻ"

# Kokoro's symbols to ARPAbet; flite and festival speak ARPAbet already. "pau" is silence.
ARPABET = {
    "A": "ey", "I": "ay", "O": "ow", "Q": "ow", "W": "aw", "Y": "oy", "a": "ae", "i": "iy", "u": "uw", "æ": "ae",
    "ɑ": "aa", "ɒ": "aa", "ɐ": "ax", "ɔ": "ao", "ə": "ax", "ɚ": "er", "ɛ": "eh", "ɜ": "er", "ɪ": "ih", "ʊ": "uh",
    "ʌ": "ah", "ᵊ": "ax", "ᵻ": "ih", "ʤ": "jh", "ʧ": "ch", "b": "b", "d": "d", "f": "f", "ɡ": "g", "h": "hh", "j": "y",
    "k": "k", "l": "l", "m": "m", "n": "n", "ŋ": "ng", "p": "p", "ɹ": "r", "s": "s", "ʃ": "sh", "t": "t", "T": "t",
    "ɾ": "t", "θ": "th", "ð": "dh", "v": "v", "w": "w", "z": "z", "ʒ": "zh",
}  # fmt: skip
PHONES = ("pau", *sorted(set(ARPABET.values())))


@functools.cache
def word_phonemes(word: str, british: bool) -> str:
    """The citation form of one word, in Kokoro's symbols."""
    if word in SPECIAL:
        return SPECIAL[word]
    command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", "en-gb" if british else "en-us", word]
    ipa = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    for old, new in _COMMON + (_BRITISH if british else _AMERICAN):
        ipa = ipa.replace(old, new)
    return "".join(c for c in ipa if c in ARPABET or c in "ˈˌː")


def sentence_phonemes(spoken: str, british: bool) -> list[tuple[str, str]]:
    """(phonemes, punctuation after it) of each word of `spoken`."""
    tokens = re.findall(r"([a-z]+(?:['-][a-z]+)*)([.,?!]?)", spoken.lower())
    words = []
    for i, (word, mark) in enumerate(tokens):
        following = word_phonemes(tokens[i + 1][0], british).lstrip("ˈˌ") if i + 1 < len(tokens) else ""
        words.append((_in_context(word, mark, following, british), mark))
    return words


def _in_context(word: str, mark: str, following: str, british: bool) -> str:
    if word == "the":
        return "ði" if following[:1] in _VOWELS else "ðə"
    if mark or word not in UNSTRESSED:
        return word_phonemes(word, british)
    weak = WEAK_FORMS_BRITISH if british else WEAK_FORMS
    return weak.get(word, word_phonemes(word, british).replace("ˈ", "").replace("ˌ", ""))
