"""The data card of the shipped corpus names its parts and carries its licences."""

import dataclasses
from pathlib import Path

from omni_jax.config import Config
from omni_jax.export.data_card import data_card

CORPUS = Path(__file__).parents[2] / "data" / "corpus" / "picture_book"


def _config(corpus):
    config = Config()
    return dataclasses.replace(config, data=dataclasses.replace(config.data, corpus=str(corpus)))


def test_the_shipped_corpus():
    card = data_card(_config(CORPUS))
    assert card["corpus"] == "picture_book"
    assert [source["name"] for source in card["sources"]] == [
        f"picture_book/{x}" for x in ("crowd", "pictures", "readings", "speech", "text")
    ]
    assert card["sources"][3]["examples"] == {"train": 2448, "test": 505}
    assert "CC BY 4.0" in card["licences"] and "WordNet" in card["licences"]


def test_own_sources_are_not_the_sample_corpus():
    config = _config(CORPUS)
    card = data_card(dataclasses.replace(config, data=dataclasses.replace(config.data, sources={"mine": "folder:my"})))
    assert card["sources"] == {"mine": "folder:my"} and "corpus" not in card and "WordNet" not in card["licences"]


def test_a_damaged_description_is_left_out(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"name": "cut of')
    assert data_card(_config(tmp_path))["sources"] == []


def test_a_corpus_without_licences_and_one_that_is_gone(tmp_path):
    assert data_card(_config(tmp_path))["licences"] == "the corpus has no LICENSES.md"
    gone = data_card(_config(tmp_path / "gone"))
    assert "not here any more" in gone["missing"] and "licences" not in gone
