"""Puts report.html together: figures, recordings and pictures embedded, no outside resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from omni_jax.report.figures import latency_histogram, loss_curves, metric_range, spectrogram_pair
from omni_jax.report.marks import MARKS, RESOURCE_MARKS, Mark, formatted, formatted_interval, is_met, mark_value
from omni_jax.report.scene_files import SceneFiles
from omni_jax.report.strip import dialogue_strip, legend_items
from omni_jax.report.style import INK, MUTED, OWN, USER

TEMPLATE = Path(__file__).parent / "page.html.j2"
NUM_SPECTROGRAMS = 2
KINDS = ("picture", "fact", "repeat", "interruption", "backchannel", "side_talk", "noise", "pause")  # order of cards
STRIP_KINDS = ("interruption", "pause", "backchannel", "picture")  # the first that a run has are shown
NUM_STRIPS = 2


def render(
    report: Mapping[str, Any],
    stages: Mapping[str, Sequence[Mapping[str, Any]]],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    scenes: Sequence[SceneFiles],
) -> str:
    """The whole page as one HTML text.

    Args:
      report: content of report.json.
      stages: logged steps a stage.
      records: the evaluation's examples a metric family.
      scenes: recorded calls to hear and see.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    scenes = sorted(scenes, key=lambda scene: KINDS.index(scene.facts["kind"]))
    first_audio = [record["first_audio_ms"] for record in records.get("latency", [])]
    rows = [_row(mark, report) for mark in MARKS if mark.key in report]
    return template.render(
        colours={"ink": INK, "muted": MUTED, "user": USER, "own": OWN},
        tiles=_tiles(report),
        met=sum(row["met"] is True for row in rows),
        marked=sum(row["mark"] is not None for row in rows),
        rows=rows,
        losses=loss_curves(stages) if stages else None,
        stages=_stage_rows(report, stages),
        pictures=[_card(scene) for scene in scenes if scene.facts["kind"] == "picture"],
        talks=[_card(scene) for scene in scenes if scene.facts["kind"] != "picture"],
        strips=[_strip(scene) for scene in _strip_scenes(scenes)],
        legend=legend_items(),
        spectrograms=_spectrograms(scenes),
        histogram=latency_histogram(first_audio) if first_audio else None,
        latency=_latency_rows(report),
    )


def _row(mark: Mark, report: Mapping[str, Any]) -> dict[str, Any]:
    value, met, wanted = report[mark.key], is_met(mark, report), mark_value(mark, report)
    low, high = report.get(f"{mark.key}_ci") or (None, None)
    sign = "at least" if mark.higher_is_better else "at most"
    return {
        "title": mark.title,
        "meaning": mark.meaning,
        "key": mark.key,
        "value": formatted(value, mark.unit),
        "interval": formatted_interval(low, high, mark.unit),
        "floor": formatted(report.get(f"{mark.key}_floor"), mark.unit),
        "ceiling": formatted(report.get(f"{mark.key}_ceiling"), mark.unit),
        "mark": None if wanted is None else f"{sign} {formatted(wanted, mark.unit)}",
        "met": met,
        "num_examples": report.get(f"{mark.key}_num_examples", 0),
        "range": None if value is None else metric_range(mark, report, met),
        "skipped": report.get(f"{mark.key}_skipped"),
    }


def _tiles(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    first = next(mark for mark in MARKS if mark.key == "first_audio_ms_median")
    factor = next(mark for mark in MARKS if mark.key == "real_time_factor")
    shown = (*RESOURCE_MARKS, first, factor)
    return [
        {
            "title": mark.title,
            "value": formatted(report.get(mark.key), mark.unit),
            "mark": None if mark.mark is None else f"at most {formatted(mark.mark, mark.unit)}",
            "met": is_met(mark, report),
        }
        for mark in shown
    ]


def _stage_rows(report: Mapping[str, Any], stages: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "stage": stage,
            "steps": f"{report[f'{stage}_steps']:,}",
            "seconds": formatted(report[f"{stage}_seconds"], "seconds"),
            "first": f"{report[f'{stage}_first_loss']:.2f}",
            "last": f"{report[f'{stage}_last_loss']:.2f}",
        }
        for stage in stages
    ]


def _card(scene: SceneFiles) -> dict[str, Any]:
    return scene.facts | {"dialogue": scene.dialogue_uri, "target": scene.target_uri, "picture": scene.picture_uri}


def _strip_scenes(scenes: Sequence[SceneFiles]) -> list[SceneFiles]:
    of_kind = {kind: [scene for scene in scenes if scene.facts["kind"] == kind] for kind in STRIP_KINDS}
    return [found[0] for found in of_kind.values() if found][:NUM_STRIPS]


def _strip(scene: SceneFiles) -> dict[str, Any]:
    return _card(scene) | {"figure": dialogue_strip(scene)}


def _spectrograms(scenes: Sequence[SceneFiles]) -> list[dict[str, Any]]:
    chosen = [scene for scene in scenes if scene.target_wav is not None and scene.facts["reply"]]
    chosen.sort(key=lambda scene: scene.facts["correct"] is not True)
    return [
        {"figure": spectrogram_pair(scene.target_wav, scene.own_speech)}
        | {"expected": scene.facts["expected"], "reply": scene.facts["reply"]}
        for scene in chosen[:NUM_SPECTROGRAMS]
    ]


def _latency_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What lies between the user's last sound and the model's first."""
    tick = [f"{report[f'tick_ms_{name}']:.0f} ms" for name in ("median", "p90", "p99")]
    return [
        ("First sound after the user's last, median", formatted(report["first_audio_ms_median"], "ms")),
        ("First sound after the user's last, 90 %", formatted(report["first_audio_ms_p90"], "ms")),
        ("Answers that start before the user has ended", formatted(report["early_start_rate"], "share")),
        ("Computation of an 80 ms frame: median, 90 %, 99 %", ", ".join(tick)),
        ("Least that the design allows (one frame)", formatted(report["first_audio_ms_median_ceiling"], "ms")),
        ("A detector that waits for 500 ms of silence", formatted(report["first_audio_ms_median_floor"], "ms")),
    ]
