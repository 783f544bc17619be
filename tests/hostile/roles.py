"""A real run of role processes (parameter server, learner, honest actors), as README's "Roles run alone" starts it.

What it knows of the run it knows from outside: exit codes, logs, metrics.jsonl, the checkpoint's info.json.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.ports import free_port

HEADRACE = str(Path(sys.executable).parent / "headrace")
PROMISE_S = 5.0
ENVS, STEPS, FRAGMENTS = 2, 16, 2
STEPS_A_VERSION = ENVS * STEPS * FRAGMENTS
NEVER = 1_000_000_000


def environ() -> dict[str, str]:
    """What a role is started with."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "OMP_NUM_THREADS": "1"}


def quote(value: object) -> str:
    """A TOML value."""
    return json.dumps(value)


class Run:
    """One run in ``root``; ``url`` is its carrier's address (default: local://)."""

    def __init__(self, root: Path, url: str = "", actors: int = 2, tcp: bool = True, **sections: dict[str, Any]):
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.actors, self.id = root, actors, secrets.token_hex(6)
        self.url = url or f"local://{root}/t"
        self.address = f"127.0.0.1:{free_port()}" if tcp else f"unix:{root}/w"
        self.token = secrets.token_hex(16)
        (root / "token").write_text(self.token + "\n")
        (root / "token").chmod(0o600)
        (root / "publish-token").write_text(secrets.token_hex(16) + "\n")
        (root / "publish-token").chmod(0o600)
        self.config: dict[str, dict[str, Any]] = {
            "run": {"id": self.id, "seed": 0, "total_steps": NEVER, "log_every_s": 0.1, "checkpoint_every_s": 5.0},
            "task": {"env": "CartPole-v1"},
            "actors": {"processes": actors, "envs": ENVS, "fragment_steps": STEPS},
            "learner": {"device": "cpu", "threads": 1, "max_staleness": 1},
            "algorithm": {"name": "ppo", "fragments": FRAGMENTS},
            "transport": {"url": self.url},
            "weights": {
                "address": self.address,
                "token_file": str(root / "token"),
                "publish_token_file": str(root / "publish-token"),
            },
        }
        for name, values in sections.items():
            self.config[name].update(values)
        self.dir = root / "run"
        self.roles: dict[str, subprocess.Popen[bytes]] = {}
        self.epochs = 0
        self.slack_s = 25.0

    def write_config(self) -> Path:
        """The file that every role is given."""
        lines: list[str] = []
        for section, values in self.config.items():
            lines += [f"[{section}]", *(f"{k} = {quote(v)}" for k, v in values.items()), ""]
        path = self.root / "run.toml"
        path.write_text("\n".join(lines))
        return path

    def start(self) -> Run:
        """Start all roles; returns when versions come, with the time an undisturbed one takes measured."""
        self.role("paramserver", "--run-dir", str(self.dir))
        self.learn()
        for i in range(self.actors):
            self.act(i)
        self.await_version(3, 60.0)
        self.measure()
        return self

    def role(self, name: str, *args: str, key: str = "", config: Path | None = None) -> subprocess.Popen[bytes]:
        """Start one role process."""
        command = [HEADRACE, name, "--config", str(config or self.write_config()), *args]
        with open(self.log(key or name), "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environ())
        self.roles[key or name] = process
        return process

    def learn(self, *args: str) -> None:
        """Start the learner."""
        self.epochs += 1
        self.role("learner", "--run-dir", str(self.dir), *args)

    def act(self, index: int) -> None:
        """Start an honest actor."""
        self.role("actor", "--index", str(index), key=f"actor-{index}")

    def log(self, key: str) -> Path:
        """Where a role's output goes."""
        return self.root / f"{key}.log"

    def rows(self) -> list[dict[str, Any]]:
        """All of metrics.jsonl that is written whole."""
        path = self.dir / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def row(self) -> dict[str, Any]:
        """The newest line of metrics.jsonl."""
        try:
            with open(self.dir / "metrics.jsonl", "rb") as f:
                f.seek(0, 2)
                f.seek(max(0, f.tell() - 20_000))
                lines = f.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return {"version": -1, "rejected": {}}
        return dict(json.loads(lines[-1])) if lines else {"version": -1, "rejected": {}}

    @property
    def version(self) -> int:
        """The learner's newest version."""
        return int(self.row()["version"])

    @property
    def rejected(self) -> int:
        """How many records the learner has refused."""
        return sum(self.row()["rejected"].values())

    def dead(self) -> list[str]:
        """Roles that have ended, with the end of what they said."""
        gone = [(k, p.poll()) for k, p in self.roles.items() if p.poll() is not None]
        return [f"{k} ended with {rc}: {self.log(k).read_bytes()[-1500:].decode(errors='replace')}" for k, rc in gone]

    def await_version(self, version: int, timeout_s: float) -> float:
        """Wait until ``version`` is there; returns the seconds it took."""
        began = time.monotonic()
        while self.version < version:
            assert not self.dead(), self.dead()
            assert time.monotonic() - began < timeout_s, f"no version {version} in {timeout_s:.1f} s, at {self.row()}"
            time.sleep(0.02)
        return time.monotonic() - began

    def measure(self, versions: int = 10) -> None:
        """Measure an undisturbed version, for the slack that a busy machine is given."""
        slowest = max(self.await_version(self.version + 1, 60.0) for _ in range(versions))
        self.slack_s = min(10.0 * slowest, 25.0)

    def goes_on(self, what: str, versions: int = 1) -> None:
        """The promise: the next version comes within 5 s (and a busy machine's slack), and nobody died."""
        at = self.version
        try:
            took = self.await_version(at + versions, PROMISE_S + self.slack_s)
        except AssertionError as e:
            raise AssertionError(f"after {what}: {e}") from e
        assert not self.dead(), f"after {what}: {self.dead()}"
        assert took < PROMISE_S + self.slack_s

    def finish(self, more_versions: int = 30, timeout_s: float = 60.0) -> None:
        """Let a new life of the learner come to the end of a budget a little beyond what has been trained.

        The actors are ended first: a learner that closes local:// ends them anyway.
        """
        for i in range(self.actors):
            assert self.stop(f"actor-{i}") == 0, self.log(f"actor-{i}").read_bytes()[-2000:]
        assert self.stop("learner") == 0, self.log("learner").read_bytes()[-2000:]
        target = (self.info()["counters"]["version"] + more_versions) * STEPS_A_VERSION
        self.config["run"]["total_steps"] = target
        self.learn("--resume")
        for i in range(self.actors):
            self.act(i)
        assert self.roles["learner"].wait(timeout_s) == 0, self.log("learner").read_bytes()[-2000:]
        for i in range(self.actors):
            assert self.roles[f"actor-{i}"].wait(30.0) == 0, self.log(f"actor-{i}").read_bytes()[-2000:]

    def info(self) -> dict[str, Any]:
        """The newest checkpoint's counters."""
        newest = max((self.dir / "checkpoints").glob("ckpt-*"))
        return dict(json.loads((newest / "info.json").read_text()))

    def stop(self, key: str, sig: int = signal.SIGTERM) -> int:
        """End one role."""
        process = self.roles.pop(key)
        if process.poll() is None:
            process.send_signal(sig)
        try:
            return process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def close(self) -> None:
        """End every role, by its pid."""
        for process in self.roles.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        self.roles.clear()
