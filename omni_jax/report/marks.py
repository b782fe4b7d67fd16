"""The metrics that the report shows, in order, with what they mean and the mark that the quickstart wants to reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Mark(NamedTuple):
    key: str
    title: str
    meaning: str
    higher_is_better: bool
    mark: float | None  # None: reported, without a mark
    unit: str = "share"  # share | rate | ms | factor
    over_floor: bool = False  # the mark is the floor plus `mark`


MARKS = (
    Mark("picture_naming_accuracy", "Names the picture", "says the right word for a picture it never saw", True, 0.25),
    Mark("picture_naming_accuracy_heard", "Names it aloud", "the same, as a speech recogniser hears it", True, None),
    Mark("spoken_question_accuracy", "Answers a spoken question", "the whole answer, word for word", True, 0.40),
    Mark("repeat_word_error_rate", "Repeats a new sentence", "words wrong, of a sentence it never heard", False, None),
    Mark("reply_word_error_rate", "Speaks what it writes", "words a speech recogniser hears wrong", False, None),
    Mark(
        "interruption_stop_share_1000ms", "Stops when interrupted", "silent within 1 s of “stop” or “wait”", True, 0.60
    ),
    Mark("backchannel_continue_share", "Goes on through “mm-hm”", "and through noise and side talk", True, 0.70),
    Mark("pause_takeover_rate", "Talks into pauses", "speaks while the user only pauses", False, 0.40),
    Mark("no_answer_rate", "Leaves questions unanswered", "nothing said within 3 s", False, 0.20),
    Mark(
        "turn_f1",
        "Knows whose turn it is",
        "user states 160 ms late, macro F1, 10 dB noise",
        True,
        0.10,
        "rate",
        True,
    ),
    Mark("turn_end_f1_240ms", "Knows when you have ended", "F1 of ends within 240 ms, in noise", True, None, "rate"),
    Mark("early_start_rate", "Starts before the user ends", "of all answers", False, None),
    Mark("first_audio_ms_median", "Time to first sound, median", "from the user's last sound", False, None, "ms"),
    Mark("first_audio_ms_p90", "Time to first sound, 90 %", "from the user's last sound", False, None, "ms"),
    Mark("real_time_factor", "Real-time factor", "computing time over speaking time", False, 0.5, "factor"),
    Mark("text_nll_ratio", "Keeps its language", "text loss after duplex over after pretrain", False, 1.10, "factor"),
)
RESOURCE_MARKS = (
    Mark("wall_seconds", "Training and evaluation", "", False, 1200.0, "seconds"),
    Mark("peak_memory_bytes", "Peak memory", "", False, 8e9, "bytes"),
)


def mark_value(mark: Mark, report: Mapping[str, Any]) -> float | None:
    """The value to reach; None where there is no mark or no floor to count from."""
    if mark.mark is None or not mark.over_floor:
        return mark.mark
    floor = report.get(f"{mark.key}_floor")
    return None if floor is None else floor + mark.mark


def is_met(mark: Mark, report: Mapping[str, Any]) -> bool | None:
    """Whether the mark is reached and the floor beaten; None where there is no mark or no value.

    A value that its floor has too shows nothing: a model that stops by itself all the time also stops in time.
    """
    value, wanted, floor = report.get(mark.key), mark_value(mark, report), report.get(f"{mark.key}_floor")
    if value is None or wanted is None:
        return None
    if mark.higher_is_better:
        return value >= wanted and (floor is None or value > floor)
    return value <= wanted and (floor is None or value < floor)


def formatted(value: float | None, unit: str) -> str:
    """A figure as people read it; a dash for a missing one."""
    if value is None:
        return "–"
    match unit:
        case "share":
            return f"{100 * value:.0f} %"
        case "ms":
            return f"{value:.0f} ms"
        case "seconds":
            return f"{value / 60:.1f} min" if value >= 90 else f"{value:.0f} s"
        case "bytes":
            return f"{value / 1e9:.1f} GB"
    return f"{value:.2f}"


def formatted_interval(low: float | None, high: float | None, unit: str) -> str:
    """Both bounds with one unit, as in "25 to 100 %"; empty for a missing one."""
    if low is None or high is None:
        return ""
    first, last = formatted(low, unit), formatted(high, unit)
    return f"{first.split(' ')[0]} to {last}"
