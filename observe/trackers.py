"""Experiment trackers: where a run is shown beside others. Each is an extra of its own name and imported only here.

    tracker = open_tracker("wandb", "cartpole-ppo-1", run_id, settings, run_dir)
    tracker.log(env_steps, {"episodes/return_mean": 211.4, ...})
    tracker.close()

Whatever a tracker raises ends the process that mirrors to it (launch/track.py, through ``translated``), never the run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from headrace.common.errors import HeadraceError, UsageError
from headrace.common.own_code import cause

PROJECT = "headrace"
#: What MLflow takes in one call.
_PARAMS_AT_ONCE, _PARAM_CHARS = 100, 500


def check(names: Iterable[str]) -> None:
    """Raises :class:`UsageError` for a tracker that is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise UsageError(f"tracker {name} is not installed here; pip install 'headrace[{name}]'")


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Whatever a tracker raises inside becomes one line of a :class:`HeadraceError`."""
    try:
        yield
    except HeadraceError:
        raise
    except Exception as error:  # a library of others, and the network behind it
        raise HeadraceError(f"tracker {name}: {cause(error)}") from error


class Tracker(Protocol):
    """One run at a tracker."""

    def log(self, env_steps: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None:
        """Wait until the tracker has everything."""


def open_tracker(name: str, run_name: str, run_id: str, settings: Mapping[str, Any], folder: Path) -> Tracker:
    """A run called ``run_name``, or the one that ``run_id`` began before, with ``settings`` (section.key -> value).
    Raises :class:`UsageError` for a tracker that is not installed, and whatever the tracker raises."""
    check([name])
    return TRACKERS[name](run_name, run_id, settings, folder)


class WandB:
    """Weights & Biases. Where it goes and whether it is online is its own environment's word (WANDB_MODE, ...)."""

    def __init__(self, run_name: str, run_id: str, settings: Mapping[str, Any], folder: Path) -> None:
        import wandb

        quiet = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(
            project=PROJECT, name=run_name, id=run_id, resume="allow", config=dict(settings), dir=folder, settings=quiet
        )
        self._run.define_metric("env_steps", hidden=True)
        self._run.define_metric("*", step_metric="env_steps")

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        self._run.log({"env_steps": env_steps, **values})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI (its own default: a database file in the working directory)."""

    def __init__(self, run_name: str, run_id: str, settings: Mapping[str, Any], folder: Path) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._client, self._metric = MlflowClient(), Metric
        experiment = self._client.get_experiment_by_name(PROJECT)
        where = self._client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
        before = self._client.search_runs([where], filter_string=f"tags.headrace_run_id = '{run_id}'", max_results=1)
        if before:
            self._run_id = before[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            return
        made = self._client.create_run(where, run_name=run_name, tags={"headrace_run_id": run_id})
        self._run_id = made.info.run_id
        params = [Param(name, str(value)[:_PARAM_CHARS]) for name, value in settings.items()]
        for first in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._run_id, params=params[first : first + _PARAMS_AT_ONCE])

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [self._metric(name, value, now_ms, env_steps) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


TRACKERS: dict[str, Callable[[str, str, Mapping[str, Any], Path], Tracker]] = {"wandb": WandB, "mlflow": MLflow}
