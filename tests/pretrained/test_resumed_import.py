"""An import that is killed goes on from the arrays that it had finished."""

import jax
import numpy as np
import pytest

from omni_jax.checkpoint import load_params
from omni_jax.config import MeshConfig
from omni_jax.parallel.mesh import make_mesh
from omni_jax.pretrained import kept_parts
from omni_jax.pretrained.importing import import_text_model
from omni_jax.pretrained.tensor_files import Tensor

from .published import GOLDEN

ONE = make_mesh(MeshConfig(), jax.devices()[:1])


class Killed(BaseException):
    pass


@pytest.fixture
def reads(monkeypatch):
    """Names of the tensors that were read; `reads.limit` kills the import at so many."""

    class Reads(list):
        limit = 10**9

    log, read = Reads(), Tensor.read

    def counted(tensor):
        if len(log) >= log.limit:
            raise Killed
        log.append((tensor.path.name, tensor.start))
        return read(tensor)

    monkeypatch.setattr(Tensor, "read", counted)
    monkeypatch.setattr(kept_parts, "PART_BYTES", 2_000)
    return log


def test_it_goes_on_and_gives_the_same(tmp_path, reads, capsys):
    import_text_model(GOLDEN / "gpt2", tmp_path / "whole", ONE)
    everything = len(reads)
    reads.clear()
    reads.limit = everything // 2
    with pytest.raises(Killed):
        import_text_model(GOLDEN / "gpt2", tmp_path / "out", ONE)
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.parts").is_dir()
    first = set(reads)
    reads.clear()
    reads.limit = 10**9
    import_text_model(GOLDEN / "gpt2", tmp_path / "out", ONE)
    assert "going on from" in capsys.readouterr().out
    assert len(first | set(reads)) == everything and len(reads) < 0.8 * everything
    assert not (tmp_path / ".out.parts").exists()
    whole, out = (load_params(tmp_path / name)[1] for name in ("whole", "out"))
    jax.tree.map(np.testing.assert_array_equal, whole, out)


def test_parts_of_another_import_are_deleted(tmp_path, reads):
    reads.limit = 20
    with pytest.raises(Killed):
        import_text_model(GOLDEN / "gpt2", tmp_path / "out", ONE)
    reads.limit = 10**9
    reads.clear()
    import_text_model(GOLDEN / "gptj", tmp_path / "out", ONE)
    assert len(reads) == len(set(reads)) and load_params(tmp_path / "out")[0].model.transformer.variant.parallel_block
