"""Configuration: errors that help, and the resolved stage files as they were last agreed on.

`python -m tests.test_config` writes tests/golden/ again; read the diff before you commit it.
"""

import json
from pathlib import Path

import pytest

from configs import align, codec, codec_recipes, duplex, own_data, perceive, pretrain, sizes
from omni_jax.config import Config, resolve
from omni_jax.config_dict import from_dict, to_dict
from omni_jax.errors import ConfigError
from omni_jax.model_config import ModelConfig, TransformerConfig
from omni_jax.train import parse_flags, read_flags

GOLDEN = Path(__file__).parent / "golden"
STAGES = {"codec": codec, "pretrain": pretrain, "perceive": perceive, "align": align, "duplex": duplex}
FILES = [*STAGES.values(), codec_recipes, own_data]
CASES = [(stage, size) for stage in STAGES for size in sizes.MODELS]
CASES += [("pretrain", size) for size in sizes.TEXT_MODELS]
MAX_KEYS = 110
RECIPES = [("codec_recipes", f"{name}{size}") for name in codec_recipes.RECIPES for size in ("", "_tiny")]
MODULES = STAGES | {"codec_recipes": codec_recipes}
FLAGS = ["train", "--config=configs/pretrain.py:tiny", "--workdir=runs/x"]


def resolved_json(stage, size):
    return json.dumps(to_dict(resolve(STAGES[stage].get_config(size))), indent=1, sort_keys=True) + "\n"


def golden_path(stage, size):
    return GOLDEN / f"{stage}_{size}.json"


def num_keys(values):
    """What one can turn: a mixture of tasks or sources counts as one key, the names of stage and size as none."""
    return sum(
        num_keys(value) if isinstance(value, dict) and key not in ("tasks", "sources") else 1
        for key, value in values.items()
        if key not in ("stage", "size")
    )


@pytest.mark.parametrize(("stage", "size"), CASES)
def test_resolved_config_is_the_golden_one(stage, size):
    assert resolved_json(stage, size) == golden_path(stage, size).read_text(), "python -m tests.test_config"


@pytest.mark.parametrize(("stage", "size"), CASES + RECIPES)
def test_a_stage_file_stays_small(stage, size):
    assert num_keys(MODULES[stage].get_config(size).to_dict()) <= MAX_KEYS


@pytest.mark.parametrize(("stage", "size"), CASES + RECIPES)
def test_config_survives_json(stage, size):
    config = resolve(MODULES[stage].get_config(size))
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("module", FILES)
def test_every_stage_file_says_how_to_run_it_and_what_to_expect(module):
    text = " ".join(module.__doc__.split())
    for needed in ("python -m omni_jax.train --config=configs/", "Hardware:", "Expected:"):
        assert needed in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"transfomer": {}}}, r"model\.transfomer\. Did you mean model\.transformer\?"),
        ({"optimizer": {"learning_rate": "fast"}}, r"optimizer\.learning_rate='fast': want float, got str"),
        ({"training": {"steps": True}}, r"training\.steps=True: want int, got bool"),
        ({"training": {"trainable": 3}}, r"training\.trainable=3: want a list"),
        ({"model": 3}, r"model=3: want a group of keys"),
        ({"stage": "finetune"}, r"stage='finetune': want one of codec, pretrain"),
        ({"model": {"num_codebooks": 4}}, r"model has 4 x 512 codes but the codec 8 x 512"),
        ({"model": {"vision": {"image_size": 60}}}, r"vision\.image_size=60"),
        ({"data": {"patches": 100}}, r"data\.patches=100: want a multiple of 64, whole pictures .*, as 128"),
        (
            {"model": {"transformer": {"num_layers": 1}}},
            r"num_dense_layers=1 leaves none of num_layers=1",
        ),
    ],
)
def test_a_wrong_value_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(Config, values)


@pytest.mark.parametrize(("image_size", "patches"), [(96, 2_160), (512, 4_096)])
def test_a_stage_has_room_for_whole_pictures_of_any_model(tmp_path, image_size, patches):
    model = from_dict(ModelConfig, {"vision": {"image_size": image_size}})
    (tmp_path / "model.json").write_text(json.dumps(to_dict(model)))
    assert align.get_config(str(tmp_path / "model.json")).data.patches == patches


def test_a_transformer_that_cannot_be_built_is_refused():
    with pytest.raises(ConfigError, match="num_heads=4 must be a multiple of num_kv_heads=3"):
        TransformerConfig(num_kv_heads=3)


def test_flags_override_the_file_and_keep_their_types():
    config, workdir, _ = parse_flags(
        [*FLAGS, "--config.training.steps=7", "--config.training.trainable=('text_head',)"]
    )
    assert (config.training.steps, config.training.trainable, workdir) == (7, ("text_head",), "runs/x")


def test_sources_are_named_freely_on_the_command_line():
    added = ["--config.data.sources.mine=folder:my/folder", "--config.data.sources.two=tfds:a#train"]
    config, _, _ = parse_flags([*FLAGS, *added])
    assert config.data.sources == {"mine": "folder:my/folder", "two": "tfds:a#train"}
    with pytest.raises(ConfigError.__mro__[1], match="reads no data"):
        read_flags(["train", "--config=configs/eval.py:tiny", "--workdir=runs/x", added[0]], "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.training.step=7"], "step"),
        (["--config.training.steps=many"], "many"),
        (["--wrokdir=x"], "wrokdir"),
        (["extra"], "unknown argument 'extra'"),
    ],
)
def test_a_wrong_flag_is_named(arguments, message):
    with pytest.raises(ConfigError.__mro__[1], match=message):
        parse_flags([*FLAGS, *arguments])


def test_an_unknown_size_is_named():
    with pytest.raises(ConfigError, match="unknown size 'huge': want one of tiny, voice, small"):
        align.get_config("huge")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case in CASES:
        golden_path(*case).write_text(resolved_json(*case))
