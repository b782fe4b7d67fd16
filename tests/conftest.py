"""Every test runs on 8 fake CPU devices, with silent rank promotion turned into an error.

Most tests compile longer than they run. So programs are compiled without LLVM's optimisations and, where jaxlib has the
choice, without the MLIR emitters of fusions, in a fifth of the time; and kept in .jax_cache, because several tests
compile the same program.
"""

import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",  # unknown to 0.12
        "--xla_force_host_platform_device_count=8",
        # That scheduler may order independent collectives otherwise on one device than on another: they wait for ever.
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
        os.environ.get("XLA_FLAGS", ""),  # last: what is given by hand wins
    ]
)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
