"""What the synthesisers return beside audio: phones with times."""

from typing import NamedTuple

SAMPLE_RATE = 24000


class Segment(NamedTuple):
    """A phone: ARPAbet name ("pau" for silence), seconds from the clip's start, index of its word (-1 for a pause)."""

    phone: str
    start: float
    end: float
    word: int
