"""The one configuration: a TOML preset or file, ``--set section.key=value`` on top, checked in whole before anything
starts. Every field has a default that was tried and a line that explains it; an unknown key names its nearest.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import import_module, resources
from pathlib import Path
from typing import Any, Literal

import pydantic
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from headrace.algorithms import ALGORITHMS
from headrace.algorithms.base import Groups
from headrace.common.errors import UsageError

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
_RUN_ID = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})?")
_SHOWN_CHARS = 60


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
    """Checkpoints kept; the best evaluated one stays besides."""
    log_every_s: float = Field(default=1.0, gt=0)
    """Seconds of training between two rows of metrics.jsonl."""
    init_from: Path | None = None
    """A run directory: start from the parameters and normalisers of its newest checkpoint (`train --init-from`)."""
    snapshot_every_steps: int = Field(default=0, ge=0)
    """Write the acting weights every so many steps (0: never), to be evaluated after the run without disturbing it."""

    @pydantic.field_validator("id")
    @classmethod
    def _fit_for_every_carrier(cls, value: str) -> str:
        if not _RUN_ID.fullmatch(value):
            raise ValueError("up to 64 letters, digits, '.', '_' and '-', the first a letter or digit")
        return value


class Task(BaseModel):
    """What is to be solved."""

    model_config = _STRICT
    env: str = "CartPole-v1"
    """A Gymnasium id."""
    backend: Literal["gymnasium", "envpool"] = "gymnasium"
    """envpool: the same environments in C++, for the ids it has (an extra)."""
    kwargs: dict[str, Any] = {}
    """Handed to the environment's constructor."""
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


class Weights(BaseModel):
    """How weights travel back."""

    model_config = _STRICT
    address: str = ""
    """The parameter server's host:port or unix:/path. Empty: a private socket of this machine."""
    token_file: Path | None = None
    """File with the bearer token of those who subscribe (actors, evaluators)."""
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
    """``name`` picks the file in algorithms/; the other keys are that file's Config."""
    transport: Transport = Transport()
    weights: Weights = Weights()

    def algorithm_module(self) -> Any:
        """The algorithm's module (its Config, schema and policy; importing it costs no torch)."""
        return import_module(f"headrace.algorithms.{ALGORITHMS[self.algorithm['name']][0]}")

    def algorithm_config(self) -> Any:
        """The algorithm's own frozen Config."""
        fields = {k: v for k, v in self.algorithm.items() if k != "name"}
        return TypeAdapter(self.algorithm_module().Config).validate_python(fields)

    def in_full(self) -> Config:
        """The same with the algorithm's defaults written out: what is stored stays what it was when a default moves."""
        own = TypeAdapter(self.algorithm_module().Config).dump_python(self.algorithm_config(), mode="json")
        given = {key: value for key, value in own.items() if value is not None}  # TOML has no null: left out is None
        return self.model_copy(update={"algorithm": {"name": self.algorithm["name"], **given}})

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


def presets() -> dict[str, Path]:
    """The shipped presets by name."""
    folder = Path(str(resources.files("headrace.launch.presets")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(name_or_file: str, overrides: Sequence[str] = ()) -> Config:
    """Read a preset or a file, apply ``section.key=value`` overrides, check everything.

    Raises :class:`UsageError` with one line: what is wrong, where, and what would be right.
    """
    table = _read(name_or_file)
    for override in overrides:
        _set(table, override)
    return check(table, name_or_file)


def check(table: Mapping[str, Any], where: str) -> Config:
    """A table to a checked :class:`Config`, the algorithm's own keys included."""
    name = table.get("algorithm", {}).get("name", "ppo")
    if name not in ALGORITHMS:
        raise UsageError(f"{where}: algorithm.name {name!r} is unknown{_nearest(name, ALGORITHMS)}")
    try:
        config = Config.model_validate({**table, "algorithm": {"name": name, **table.get("algorithm", {})}})
    except pydantic.ValidationError as error:
        raise UsageError(f"{where}: {_one_line(error, Config, '')}") from error
    if (found := _not_finite(config.task.kwargs, "task.kwargs")) is not None:
        raise UsageError(f"{where}: {found} is not a finite number, and a run's config.toml must hold what it was")
    known = {"name", *_keys(config.algorithm_module().Config, ())}
    for key in config.algorithm.keys() - known:
        raise UsageError(f"{where}: unknown key algorithm.{key}{_nearest(key, known)}")
    try:
        return config.in_full()
    except pydantic.ValidationError as error:
        raise UsageError(f"{where}: {_one_line(error, config.algorithm_module().Config, 'algorithm.')}") from error


def _read(name_or_file: str) -> dict[str, Any]:
    known = presets()
    path = known.get(name_or_file, Path(name_or_file))
    if not path.is_file():
        raise UsageError(f"{name_or_file!r} is neither a preset nor a file{_nearest(name_or_file, known)}")
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error


def _set(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise UsageError(f"--set {override!r}: write section.key=value, for instance --set run.seed=1")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {override!r}: {part} is a value, not a section")
    table[parts[-1]] = value


def _one_line(error: pydantic.ValidationError, model: Any, prefix: str) -> str:
    """The first finding, as a person would say it."""
    found = error.errors()[0]
    where = prefix + ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        return f"unknown key {where}{_nearest(str(found['loc'][-1]), _keys(model, found['loc'][:-1]))}"
    shown, says = repr(found["input"]), found["msg"].removeprefix("Value error, ")
    if len(shown) > _SHOWN_CHARS:
        shown = f"{shown[:_SHOWN_CHARS]}..."
    if found["type"] in ("tuple_type", "list_type"):
        says = "input should be a list, such as [64, 64]"
    return f"{where} = {shown}: {says[0].lower()}{says[1:]}"


def _not_finite(value: Any, where: str) -> str | None:
    """Where in a value of TOML the first NaN or infinity stands; None if there is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} = {value}"
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((found for key, part in inside if (found := _not_finite(part, f"{where}.{key}"))), None)


def _keys(model: Any, path: Sequence[Any]) -> list[str]:
    for part in path:
        model = model.model_fields[part].annotation
    return list(getattr(model, "model_fields", None) or model.__dataclass_fields__)


def _nearest(name: str, known: Any) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"
