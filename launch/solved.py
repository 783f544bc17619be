"""When a task counts as solved, and when a run ends because it is (`run.stop_when_solved`)."""

from __future__ import annotations

from headrace.common.errors import UsageError
from headrace.launch.config import Config
from headrace.tasks.gymnasium_env import reward_threshold


def solved_at(config: Config) -> float | None:
    """The return at which the task counts as solved: the config's word, else Gymnasium's, else None."""
    if config.task.solved is not None:
        return config.task.solved
    return reward_threshold(config.task.env)


def stop_at(config: Config) -> float | None:
    """The return that ends the run, None where none does. Raises :class:`UsageError` where nobody could tell."""
    wanted = config.run.stop_when_solved
    if wanted is False:
        return None
    if config.run.evaluation_share == 0:
        raise UsageError("run.stop_when_solved: evaluation judges it, and run.evaluation_share = 0 says there is none")
    if wanted is not True:
        return float(wanted)
    if (threshold := solved_at(config)) is None:
        raise UsageError(
            f"run.stop_when_solved: nothing says when {config.task.env} is solved; give the return as a number, or "
            "task.solved"
        )
    return threshold
