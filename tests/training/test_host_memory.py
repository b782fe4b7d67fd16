"""A buffer that was freed is used again, without new pages from the system."""

import resource
import sys

import numpy as np
import pytest

from omni_jax.training.host_memory import keep_freed_memory

PAGES = 2**26 // 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_freed_buffers_are_used_again():
    assert keep_freed_memory()

    def page_faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(2**24, np.float32)  # 64 MB, freed at once
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    page_faults()
    assert min(page_faults() for _ in range(5)) < PAGES // 20
