"""What a prepared source holds: counts, hours, histograms of lengths, as JSON and as a Markdown card with a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omni_jax.input_pipeline.readers.record import Record

SECONDS_STEP, MAX_SECONDS = 1, 60
CHARACTERS_STEP, MAX_CHARACTERS = 20, 2000
PIXELS_STEP, MAX_PIXELS = 64, 2048


@dataclass
class Statistics:
    """Counts that add up. Histograms map the lower edge of a bin, as text for JSON, to how many fall into it."""

    examples: int = 0
    seconds: float = 0.0
    characters: int = 0
    having: dict[str, int] = field(default_factory=dict)
    seconds_histogram: dict[str, int] = field(default_factory=dict)
    characters_histogram: dict[str, int] = field(default_factory=dict)
    pixels_histogram: dict[str, int] = field(default_factory=dict)

    def add(self, record: Record, seconds: float, picture_size: tuple[int, int] | None) -> None:
        self.examples += 1
        self.seconds += seconds
        characters = sum(map(len, record.texts))
        self.characters += characters
        present = {name: value for name, value in vars(record).items() if name != "key" and _is_present(value)}
        for name in present:
            _count(self.having, name)
        if seconds:
            _count(self.seconds_histogram, _bin(seconds, SECONDS_STEP, MAX_SECONDS))
        if characters:
            _count(self.characters_histogram, _bin(characters, CHARACTERS_STEP, MAX_CHARACTERS))
        if picture_size:
            _count(self.pixels_histogram, _bin(max(picture_size), PIXELS_STEP, MAX_PIXELS))

    @classmethod
    def merged(cls, parts: Sequence[Statistics]) -> Statistics:
        total = cls()
        for part in parts:
            for name, value in vars(part).items():
                if isinstance(value, dict):
                    for key, count in value.items():
                        _count(getattr(total, name), key, count)
                else:
                    setattr(total, name, getattr(total, name) + value)
        return total


def _is_present(value: object) -> bool:
    return value is not None and (not isinstance(value, str | tuple | dict) or len(value) > 0)


def _count(counts: dict[str, int], key: str, number: int = 1) -> None:
    counts[key] = counts.get(key, 0) + number


def _bin(value: float, step: int, most: int) -> str:
    return str(min(int(value) // step * step, most))


def write_card(directory: Path, source: str, statistics: Statistics, bad: Mapping[str, int]) -> None:
    """card.json, card.md and card.png."""
    values = {"source": source, **vars(statistics), "set_aside": dict(bad)}
    (directory / "card.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    having = "\n".join(f"| {name} | {count} |" for name, count in sorted(statistics.having.items()))
    lost = "\n".join(f"| {cause} | {count} |" for cause, count in sorted(bad.items())) or "| nothing | 0 |"
    (directory / "card.md").write_text(
        f"# {directory.name}\n\nPrepared from `{source}`: {statistics.examples} examples, "
        f"{statistics.seconds / 3600:.2f} hours of audio, {statistics.characters} characters of text.\n\n"
        f"| examples with | |\n|---|---|\n{having}\n\n| set aside | records |\n|---|---|\n{lost}\n\n"
        "![histograms](card.png)\n",
        encoding="utf-8",
    )
    _draw(directory / "card.png", statistics)


def _draw(path: Path, statistics: Statistics) -> None:
    from omni_jax.report.style import USER, plt

    panels = {
        "seconds of audio": (statistics.seconds_histogram, SECONDS_STEP),
        "characters of text": (statistics.characters_histogram, CHARACTERS_STEP),
        "longer side of pictures": (statistics.pixels_histogram, PIXELS_STEP),
    }
    panels = {title: panel for title, panel in panels.items() if panel[0]}
    figure, axes = plt.subplots(1, max(1, len(panels)), figsize=(3.6 * max(1, len(panels)), 2.2), squeeze=False)
    for ax, (title, (counts, step)) in zip(axes[0], panels.items(), strict=False):
        edges = sorted(map(int, counts))
        ax.bar(edges, [counts[str(edge)] for edge in edges], width=step * 0.92, align="edge", color=USER)
        ax.set_title(title)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
