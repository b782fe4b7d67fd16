"""The tasks that a batch can mix; `Batch.task` holds these numbers, and `data.tasks` the lower-case names."""

from __future__ import annotations

from enum import IntEnum


class Task(IntEnum):
    """What an example teaches. Every task is only a layout of positions, targets and weights."""

    NONE = 0  # padding
    TEXT = 1  # text alone
    ASR = 2  # heard speech, then its text
    TTS = 3  # text, then own speech
    FRAME_ASR = 4  # heard speech on the frame grid, its text some frames later
    FRAME_TTS = 5  # time-aligned text on the frame grid drives own speech
    CAPTION = 6  # picture, then its caption
    PICTURE_QA = 7  # picture and a written question, then the written answer
    DIALOGUE = 8  # both sides of a spoken dialogue on the frame grid
    HEAR = 9  # heard speech for the audio encoder alone (phones, CTC): it costs the transformer one position
    SEE = 10  # a picture for the vision encoder alone (tags)
    SPOKEN_QA = 11  # a spoken question on the frame grid, answered in text
    WRITTEN_QA = 12  # the same question in writing
    READING = 13  # lines of text read aloud in many more voices, for the audio encoder alone
