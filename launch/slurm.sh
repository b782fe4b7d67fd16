#!/usr/bin/env bash
# One training run on a Slurm cluster, one process a GPU. Submit with the usual sbatch options:
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 launch/slurm.sh \
#     --config=configs/pretrain.py:small --workdir=/shared/runs/small
# JAX reads the coordinator and the ranks from Slurm's own variables.
set -euo pipefail
export OMNI_DISTRIBUTED=1
srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" -m omni_jax.train "$@"
