"""The one configuration of a run. Every field has a default that was tried and a line that explains it; load.py reads
it from a preset or a file and checks it in whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, StrictBool, TypeAdapter, field_validator

from headrace.algorithms import module_of
from headrace.algorithms.base import Groups

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
_RUN_ID = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})?")


class Run(BaseModel):
    """How long, from which seed, and what is kept of it."""

    model_config = _STRICT
    id: str = ""
    """Names the run on the wire; records and weights of another run are refused. Empty: made up by `headrace train`."""
    seed: int = 0
    """Everything random follows from it."""
    total_steps: int = Field(default=1_000_000, gt=0)
    """Environment steps to train on."""
    checkpoint_every_s: float = Field(default=30.0, gt=0)
    """Seconds of training between checkpoints."""
    checkpoint_keep: int = Field(default=3, ge=1)
    """Checkpoints kept. (The best evaluated policy has a place of its own, best/.)"""
    log_every_s: float = Field(default=1.0, gt=0)
    """Seconds of training between two rows of metrics.jsonl."""
    turn_timeout_s: float = Field(default=300.0, gt=0)
    """A role whose own loop has not turned for so long is stuck: its /healthz answers 503, and a platform restarts it.
    Longer than the longest update; waiting for others is no standing still."""
    init_from: Path | None = None
    """A run directory: start from the parameters and normalisers of its newest checkpoint (`train --init-from`)."""
    snapshot_every_steps: int = Field(default=0, ge=0)
    """Write the acting weights every so many steps (0: never), to be evaluated after the run without disturbing it."""
    evaluation_share: float = Field(default=0.02, ge=0, le=1)
    """Share of one core that greedy evaluation during training may take under `headrace train` (docs/evaluation.md).
    0: none."""
    evaluation_episodes: int = Field(default=20, ge=2)
    """Greedy episodes of each evaluation during training."""
    stop_when_solved: StrictBool | float = False
    """End the run when greedy evaluation during training shows that the task is solved: true means by ``task.solved``,
    else by what Gymnasium has registered; a number is the return to reach."""
    video_every_s: float = Field(default=0.0, ge=0)
    """A GIF of the newest policy into videos/ about every so many seconds (0: none), within ``evaluation_share``."""
    trackers: tuple[Literal["wandb", "mlflow"], ...] = ()
    """Experiment trackers that `headrace train` mirrors the run to (extras of the same names; docs/evaluation.md)."""

    @field_validator("id")
    @classmethod
    def _fit_for_every_carrier(cls, value: str) -> str:
        if not _RUN_ID.fullmatch(value):
            raise ValueError("up to 64 letters, digits, '.', '_' and '-', the first a letter or digit")
        return value


class Task(BaseModel):
    """What is to be solved."""

    model_config = _STRICT
    env: str = "CartPole-v1"
    """A Gymnasium id; "package.module:Id-v0" for one that a module registers; "package.module:make_env" for a class or
    function that makes one (docs/own-environment.md)."""
    backend: Literal["gymnasium", "envpool"] = "gymnasium"
    """envpool: the same environments in C++, for the ids it has (an extra)."""
    kwargs: dict[str, Any] = {}
    """Handed to the environment's constructor."""
    wrappers: tuple[str | dict[str, Any], ...] = ()
    """Around each environment, the first one innermost: names of gymnasium.wrappers, your own "package.module:Class",
    or tables of ``name`` and arguments. Returns that are shown and evaluated are those beneath them."""
    solved: float | None = None
    """The return at which the task counts as solved (default: what Gymnasium has registered for it, if anything)."""


class Actors(BaseModel):
    """Who collects. Fragments per update are the algorithm's; these are the other two of the three batch numbers."""

    model_config = _STRICT
    processes: int = Field(default=2, ge=1)
    """Actor processes (of this machine, under `headrace train`)."""
    workers: int = Field(default=1, ge=1)
    """Rollout workers per process. Results depend on processes * workers, not on how they are shared out."""
    envs: int = Field(default=8, ge=1)
    """Environments per rollout worker, stepped with one batched forward. (Groups set it: one episode each.)"""
    fragment_steps: int = Field(default=128, ge=1)
    """Steps per environment in a fragment."""
    step_timeout_s: float = Field(default=60.0, gt=0)
    """An environment whose ``step()`` or ``reset()`` takes longer hangs: its actor ends, and is started again."""
    memory_bytes: int = Field(default=0, ge=0)
    """Memory an actor process may take, with all that its environments start; beyond it the actor ends, says so, and is
    started again. 0: an equal share of this machine's (or container's) memory under `headrace train`; no limit for an
    actor that is run singly, whose platform has one."""


class Learner(BaseModel):
    """Who learns."""

    model_config = _STRICT
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """auto (CUDA where there is a device, else cpu), cpu, cuda or cuda:N."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products in a gradient step; parameters, optimiser and losses stay float32."""
    compile: bool = False
    """torch.compile the gradient step: up to half a minute at the start. What it gives: docs/learner-options.md."""
    cuda_graphs: bool = False
    """Launch each gradient step as one CUDA graph."""
    threads: int = Field(default=1, ge=1)
    """torch threads; small networks want one."""
    max_staleness: int = Field(default=1, ge=0)
    """Versions a fragment may be behind when it is trained on. 0: lockstep, bit for bit the serial runner."""


class Transport(BaseModel):
    """How trajectories travel."""

    model_config = _STRICT
    url: str = "local://"
    """local:// (this machine) or kafka://host:port[/topic]. local:// without a path gets a private one, kafka://
    without a topic one of the run's own, headrace-<run.id>."""
    record_bytes: int = Field(default=8 << 20, ge=1 << 16)
    """Largest encoded fragment; every other size limit follows from it."""
    queue_bytes: int = Field(default=64 << 20, ge=1 << 20)
    """Bytes a writer may hold unacknowledged, and the learner may hold unread."""

    @field_validator("url")
    @classmethod
    def _can_be_taken_apart(cls, value: str) -> str:
        urlsplit(value)  # ValueError for "[" without "]"
        return value


class Weights(BaseModel):
    """How weights travel back."""

    model_config = _STRICT
    address: str = ""
    """The parameter server's host:port or unix:/path. Empty: a private socket of this machine. Several, separated by
    commas, where there are relays (docs/scale.md): who reads weights takes the first and turns to the next when it is
    away; the root is the last."""
    relay_token_file: Path | None = None
    """File with the token of relays, which speak for the actors below them. The root needs it to have any, relays to
    show it."""
    token_file: Path | None = None
    """File with the bearer token of those who subscribe (actors, evaluators); two lines while it is replaced
    (SECURITY.md). Read anew when it changes, as all files here are."""
    publish_token_file: Path | None = None
    """File with the learner's token, another one; the server needs both. Needed to listen beyond this machine."""
    tls_cert: Path | None = None
    """The server's certificate (PEM); with ``tls_key``."""
    tls_key: Path | None = None
    """The server's private key (PEM)."""
    tls_client_ca: Path | None = None
    """Ask every client for a certificate that this one signed and that names its role (SECURITY.md)."""
    tls_ca: Path | None = None
    """What clients trust: switches their side to TLS."""
    tls_client_cert: Path | None = None
    """The certificate (PEM) that this role shows to a server that asks for one; with ``tls_client_key``."""
    tls_client_key: Path | None = None
    """Its private key (PEM)."""
    insecure: bool = False
    """Listen beyond this machine without authentication all the same."""
    lease_ttl_s: float = Field(default=3.5, gt=1.0)
    """A rollout worker not heard of for so long has lost its lease (its heart beats every second)."""
    lease_max_s: float = Field(default=0.0, ge=0)
    """A lease held for so long is given up though its worker is heard of. 0: 20 times the usual, at least 10 s."""
    leases_per_peer: int = Field(default=0, ge=0)
    """Leases one machine may have undelivered while others collect as well. 0: half of all there are."""
    delivery_s: float = Field(default=5.0, gt=0)
    """A fragment that was put so long ago and did not come, while nothing waits in the carrier, is lost."""
    down_timeout_s: float = Field(default=120.0, gt=0)
    """How long learner, actors and evaluators wait for a parameter server that is away, the first time included."""


class Config(BaseModel):
    """A whole run."""

    model_config = _STRICT
    run: Run = Run()
    task: Task = Task()
    actors: Actors = Actors()
    learner: Learner = Learner()
    algorithm: dict[str, Any] = {"name": "ppo"}
    """``name`` picks the file, one of algorithms/ or of your own ("package.module:Class"); the other keys are that
    file's Config."""
    transport: Transport = Transport()
    weights: Weights = Weights()

    def algorithm_module(self) -> Any:
        """The algorithm's module (its Config, schema and policy; importing it costs no torch)."""
        return module_of(self.algorithm["name"])

    @property
    def algorithm_label(self) -> str:
        """Its name, without the place where it stands."""
        return str(self.algorithm["name"]).rpartition(":")[2]

    def algorithm_config(self) -> Any:
        """The algorithm's own frozen Config."""
        fields = {k: v for k, v in self.algorithm.items() if k != "name"}
        return TypeAdapter(self.algorithm_module().Config).validate_python(fields)

    def in_full(self) -> Config:
        """The same with the algorithm's defaults written out: what is stored stays what it was when a default moves."""
        own = TypeAdapter(self.algorithm_module().Config).dump_python(self.algorithm_config(), mode="json")
        given = {key: value for key, value in own.items() if value is not None}  # TOML has no null: left out is None
        return self.model_copy(update={"algorithm": {"name": self.algorithm["name"], **given}})

    def flat(self) -> dict[str, Any]:
        """``section.key`` -> value, as JSON has it, of everything that is set."""
        return dict(_flat(self.model_dump(mode="json")))

    @property
    def workers(self) -> int:
        return self.actors.processes * self.actors.workers

    @property
    def leases_at_once(self) -> int:
        """Fragments that may be begun and not trained on: those of the next version and of as many as may be stale."""
        experience = self.algorithm_config().experience
        per_version: int = experience.groups if isinstance(experience, Groups) else experience.fragments
        return per_version * (1 + self.learner.max_staleness)

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def _flat(table: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{section}{key}.")
        elif value is not None:
            yield f"{section}{key}", value
