"""How long until the next version, when one part has bad luck? The worst of many, with ``max_staleness`` 1.

    python bench/next_version.py [--repeats 20] [--only NAME ...] [--json]      -> bench/results/next_version.json

One `headrace train` of CartPole with two actors (through a real Kafka where the broker is what is killed). Again and
again, at a random moment of a run in full swing, the misfortune comes, and the clock runs until the learner has made a
version more than the fragments under way could give it:

    actor_killed        SIGKILL to one of the two                                                       target  2 s
    actor_stopped       SIGTERM to one of the two                                                       target  2 s
    actor_frozen        SIGSTOP to one of the two; it goes on when the version is there                 target  5 s
    paramserver_killed  SIGKILL to the parameter server                                                 target 10 s
    broker_back         SIGKILL to the broker and its start again; the clock runs from its return on    target  5 s

What is killed has lived for 10 s: the supervisor's pauses grow for what dies again sooner. Versions are seen in
/metrics of the learner, every 20 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hardware import save

from headrace.common.errors import UsageError
from headrace.launch.supervisor import FORGIVEN_AFTER_S
from tests.broker import OwnBroker
from tests.faults.run import Run

TARGET_S = {"actor_killed": 2.0, "actor_stopped": 2.0, "actor_frozen": 5.0, "paramserver_killed": 10.0,
            "broker_back": 5.0}  # fmt: skip
#: Fragments under way when the misfortune comes are those of the versions that follow: with max_staleness 1, two.
UNDER_WAY_VERSIONS = 2
#: Versions take tens of milliseconds: what is measured is the misfortune.
SETTINGS = ("actors.envs=8", "actors.fragment_steps=64", "learner.max_staleness=1", "learner.device=cpu")
GIVE_UP_S = 120.0


class Misfortune:
    """Things to do to a run; each returns once its clock is to start, and hands back what undoes it."""

    def __init__(self, run: Run, rng: random.Random, broker: OwnBroker | None) -> None:
        self._run, self._rng, self._broker = run, rng, broker

    def actor_killed(self) -> Callable[[], None]:
        return self._signal("actor", signal.SIGKILL)

    def actor_stopped(self) -> Callable[[], None]:
        return self._signal("actor", signal.SIGTERM)

    def actor_frozen(self) -> Callable[[], None]:
        return self._signal("actor", signal.SIGSTOP)

    def paramserver_killed(self) -> Callable[[], None]:
        return self._signal("paramserver", signal.SIGKILL)

    def broker_back(self) -> Callable[[], None]:
        assert self._broker is not None
        self._broker.kill()
        until_s = time.monotonic() + GIVE_UP_S
        while True:
            try:
                self._broker.start()
                return lambda: None
            except UsageError:  # the port is not free yet
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.1)

    def _signal(self, role: str, number: signal.Signals) -> Callable[[], None]:
        index = self._rng.randrange(2) if role == "actor" else 0
        pid = self._run.wait_until(lambda: self._run.pid(role, index), f"{role} {index} is there")
        os.kill(pid, number)
        return lambda: os.kill(pid, signal.SIGCONT) if number == signal.SIGSTOP else None


def version(run: Run) -> int:
    return int(run.metrics("learner").get(("learner_policy_version",), -1))


def in_full_swing(run: Run) -> bool:
    """Both actors work, and the learner makes versions of what they send."""
    return version(run) >= 5 and all(run.metrics("actor", i).get(("actor_fragments_total",), 0) >= 2 for i in range(2))


def until_next_version_s(run: Run, cause: Callable[[], Callable[[], None]]) -> float:
    undo = cause()
    began_s, before = time.monotonic(), version(run)
    run.wait_until(lambda: version(run) > before + UNDER_WAY_VERSIONS, "the next version", GIVE_UP_S)
    took_s = time.monotonic() - began_s
    undo()
    return took_s


@contextlib.contextmanager
def training(folder: Path, *settings: str) -> Iterator[Run]:
    """A run in full swing, and its end."""
    folder.mkdir()
    run = Run(folder, "ppo", *SETTINGS, *settings)
    try:
        run.train()
        run.wait_until(lambda: in_full_swing(run), "a run in full swing", GIVE_UP_S)
        yield run
    finally:
        run.close()


def measure(folder: Path, name: str, repeats: int, rng: random.Random) -> list[float]:
    """Seconds until the next version, ``repeats`` times within one run."""
    broker = OwnBroker(folder / "broker") if name == "broker_back" else None
    where = []
    if broker is not None:
        where = [f"transport.url='kafka://{broker.info.bootstrap}/next-{uuid.uuid4().hex[:8]}?partitions=2'"]
    try:
        with training(folder / name, *where) as run:
            took_s = []
            for _ in range(repeats):
                run.wait_until(lambda: in_full_swing(run), "a run in full swing", GIVE_UP_S)
                if name in ("actor_killed", "actor_stopped", "paramserver_killed"):
                    time.sleep(FORGIVEN_AFTER_S)
                time.sleep(rng.uniform(0.0, 1.0))  # at any point of a fragment
                took_s.append(round(until_next_version_s(run, getattr(Misfortune(run, rng, broker), name)), 3))
                print(f"{name:20} {took_s[-1]:7.2f} s", flush=True)
            return took_s
    finally:
        if broker is not None:
            broker.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=TARGET_S, default=list(TARGET_S))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="keep the result in bench/results/next_version.json")
    args = parser.parse_args()
    rng, found = random.Random(args.seed), {}
    with tempfile.TemporaryDirectory(prefix="next-") as folder:
        for name in args.only:
            found[name] = measure(Path(folder), name, args.repeats, rng)
    result = {
        name: {"worst_s": max(s), "median_s": statistics.median(s), "target_s": TARGET_S[name], "all_s": s,
               "met": max(s) <= TARGET_S[name]}
        for name, s in found.items()
    }  # fmt: skip
    for name, row in result.items():
        print(f"{name:20} worst of {args.repeats} {row['worst_s']:6.2f} s, median {row['median_s']:6.2f} s, "
              f"target {row['target_s']:g} s: {'met' if row['met'] else 'NOT met'}")  # fmt: skip
    if args.json:
        print(save("next_version", {"repeats": args.repeats, "max_staleness": 1, "next_version": result}))
    return 0 if all(row["met"] for row in result.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
