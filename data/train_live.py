"""Trains as omni_jax.train does, with the seqio tasks of data/tasks.py registered: for small runs on live mixtures.

python -m data.train_live --config=configs/own_data.py:tiny --workdir=runs/live --config.data.sources.book=seqio:book

It imports TensorFlow, reads the first 20,000 examples into memory and does not resume exactly; data/cache_tasks.py
makes files of a task or mixture, without these limits. Your own tasks: register them in a module like this one.
"""

from __future__ import annotations

from data import tasks  # noqa: F401  (registers the tasks, in worker processes too)
from omni_jax.errors import run_main
from omni_jax.train import main

if __name__ == "__main__":
    run_main(main)
