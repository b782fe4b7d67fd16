"""Where every parameter of every size lies, as last agreed on.

`python -m tests.parallel.test_golden_specs` writes tests/golden/specs/ again; read the diff before you commit it.
"""

import json
from pathlib import Path

import jax
import pytest

from configs import pretrain, sizes
from omni_jax.config import resolve
from omni_jax.models import omni
from omni_jax.training.optimizer import parameter_path

GOLDEN = Path(__file__).parents[1] / "golden" / "specs"
SIZES = [*sizes.MODELS, *sizes.TEXT_MODELS]
SMALL_BYTES = 2**22  # what may lie whole on every device: norms, biases, positions


def specs(size):
    axes = omni.param_axes(resolve(pretrain.get_config(size)).model)
    leaves = jax.tree_util.tree_leaves_with_path(axes)
    return {parameter_path(path): f"{list(leaf.shape)} {tuple(leaf.spec)}" for path, leaf in leaves}


def as_json(size):
    return json.dumps(specs(size), indent=0, sort_keys=True) + "\n"


@pytest.mark.parametrize("size", SIZES)
def test_specs_are_the_golden_ones(size):
    assert as_json(size) == (GOLDEN / f"{size}.json").read_text(), "python -m tests.parallel.test_golden_specs"


@pytest.mark.parametrize("size", SIZES)
def test_nothing_large_is_whole_on_every_device(size):
    axes = omni.param_axes(resolve(pretrain.get_config(size)).model)
    for path, leaf in jax.tree_util.tree_leaves_with_path(axes):
        layer = leaf.shape[1:] if leaf.names[0] == "layers" else leaf.shape
        whole = not any(leaf.spec)
        assert not whole or 4 * jax.numpy.prod(jax.numpy.asarray(layer)) <= SMALL_BYTES, parameter_path(path)


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in SIZES:
        (GOLDEN / f"{name}.json").write_text(as_json(name))
