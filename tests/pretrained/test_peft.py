"""Low-rank updates in PEFT's files and back."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from omni_jax.config import MeshConfig
from omni_jax.errors import UserError
from omni_jax.models import binding
from omni_jax.models.language import LanguageModel
from omni_jax.nn.low_rank import is_update
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained.families import TEXT_FAMILIES
from omni_jax.pretrained.importing import load_model
from omni_jax.pretrained.paths import flatten, unflatten
from omni_jax.pretrained.peft import read_adapters, write_adapters
from omni_jax.pretrained.tensor_files import read_header

from .published import GOLDEN

ONE = make_mesh(MeshConfig(), jax.devices()[:1])


def with_updates(family, lora, seed=0):
    """A golden model and random updates of it."""
    model = load_model(GOLDEN / family, ONE)
    cfg = dataclasses.replace(model.config, lora=lora)
    rng = np.random.default_rng(seed)
    arrays = flatten(model.params)
    for path, leaf in flatten(binding.param_axes(LanguageModel, cfg)).items():
        if is_update(path):
            values = 0.3 * rng.standard_normal(leaf.shape) + path.endswith("_m")
            arrays[path] = values.astype(np.float32)
    return cfg, unflatten(arrays)


@pytest.mark.parametrize(
    ("family", "lora"),
    [
        ("qwen3", "*/attention/*=2,*/mlp/*/kernel=3"),
        ("gptj", "*/attention/*=dora2,*/mlp/*/kernel=dora2"),
        ("gpt2", "*/attention/out=2,*/mlp/up/kernel=2"),
        ("llama", "text_head=2"),
    ],
)
def test_there_and_back(family, lora, tmp_path):
    cfg, params = with_updates(family, lora)
    assert write_adapters(TEXT_FAMILIES[family], cfg, params, tmp_path / "out") == []
    plain = unflatten({path: value for path, value in flatten(params).items() if not is_update(path)})
    without = dataclasses.replace(cfg, lora="")
    again, read = read_adapters(TEXT_FAMILIES[family], without, plain, tmp_path / "out")
    before, after = flatten(params), flatten(read)
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_allclose(after[path], value, atol=1e-6, err_msg=path)
    axes = flatten(binding.param_axes(LanguageModel, again))
    assert {path: axes[path].shape for path in before} == {path: value.shape for path, value in before.items()}


def test_the_files_are_pefts(tmp_path):
    cfg, params = with_updates("qwen3", "*/attention/query=dora2,*/attention/out=dora3")
    write_adapters(TEXT_FAMILIES["qwen3"], cfg, params, tmp_path / "out")
    tensors = read_header(tmp_path / "out" / "adapter_model.safetensors")
    first = "base_model.model.model.layers.1.self_attn.q_proj"
    assert tensors[f"{first}.lora_A.weight"].shape == (2, 16) and tensors[f"{first}.lora_B.weight"].shape == (24, 2)
    assert tensors[f"{first}.lora_magnitude_vector"].shape == (24,)
    values = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert values["use_dora"] and len(values["target_modules"]) == 4 and len(values["rank_pattern"]) == 2


def test_what_peft_cannot_hold_is_refused(tmp_path):
    for family, lora, message in (
        ("gpt2", "*/attention/query=2", "PEFT has no update of it"),
        ("mixtral", "*/moe/gate=2", "PEFT has no update of it"),
        ("qwen3", "*/attention/query=2,*/attention/key=dora2", "all of them LoRA or all of them DoRA"),
        ("qwen3", "", "want updates of the text path"),
    ):
        with pytest.raises(UserError, match=message):
            write_adapters(TEXT_FAMILIES[family], *with_updates(family, lora), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    cfg, params = with_updates("qwen3", "*/attention/*=2")
    write_adapters(TEXT_FAMILIES["qwen3"], cfg, params, tmp_path / "out")
    other = load_model(GOLDEN / "llama", ONE)
    with pytest.raises(UserError, match="does not fit"):
        read_adapters(TEXT_FAMILIES["llama"], other.config, other.params, tmp_path / "out")
