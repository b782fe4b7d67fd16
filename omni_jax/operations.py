"""How a run is looked after. Nothing here changes what a step computes, so every start may choose anew."""

from __future__ import annotations

from dataclasses import dataclass

from omni_jax.errors import UserError


@dataclass(frozen=True)
class Operations:
    """Flags of `python -m omni_jax.train` beside the config; 0 or "" switches a thing off."""

    allow_config_change: bool = False  # go on with a checkpoint although the config differs
    checkpoint_every_s: float = 0.0  # also save after so many seconds, whatever training.checkpoint_every says
    keep_every: int = 0  # checkpoints of steps that are a multiple are kept for good
    best_metric: str = ""  # the checkpoint with the least mean of this logged metric is kept, such as held_out/loss
    on_full_disk: str = "stop"  # stop | wait: what to do when a checkpoint does not fit
    evaluate_every: int = 0  # steps between losses on held-out batches, logged as held_out/loss and its terms
    max_bad_steps: int = 5  # skipped steps in a row before the run goes back to a checkpoint
    stall_timeout_s: float = 900.0  # without a finished step for so long, dump all stacks and abort
    grace_s: float = 27.0  # after SIGTERM or Ctrl-C: a step and a save that take longer are given up
    profile_steps: str = ""  # first:last, such as 10:13, traced into <workdir>/profile (xprof)

    def __post_init__(self) -> None:
        if self.on_full_disk not in ("stop", "wait"):
            raise UserError(f"--on_full_disk={self.on_full_disk}: want stop or wait")
        for name in ("checkpoint_every_s", "keep_every", "evaluate_every", "stall_timeout_s"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name}={getattr(self, name)}: want 0 (off) or more")
        if self.grace_s <= 0:
            raise UserError(f"--grace_s={self.grace_s}: want more than 0")
        if self.max_bad_steps < 1:
            raise UserError(f"--max_bad_steps={self.max_bad_steps}: want at least 1")
        self.profile_window()

    def profile_window(self) -> tuple[int, int]:
        """First and last step to trace; (0, 0) is none. Raises UserError."""
        if not self.profile_steps:
            return 0, 0
        first, _, last = self.profile_steps.partition(":")
        if not (first.isdecimal() and last.isdecimal()) or not 0 < int(first) <= int(last):
            raise UserError(f"--profile_steps={self.profile_steps}: want first:last, such as 10:13")
        return int(first), int(last)
