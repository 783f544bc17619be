"""The loads of bench/scale.py, and how one is put on a real parameter server, broker and learner, and measured."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil
from counting_learner import Plan, learn
from swarm import Crowd
from swarm_rig import Rig, growth, look, shares

CALIBRATED_AT, MANY = 32, 256
#: Cycles of an actor that are watched at least: of 8 actors one fragment more or less is seen.
CYCLES = 5
PARTITIONS, WARM_UP_S = 4, 4.0


@dataclass(frozen=True)
class Load:
    """What a measurement does; see Cluster in scale_model.py."""

    actors: int = CALIBRATED_AT
    fragment_s: float = 1.0
    fragment_steps: int = 128
    envs: int = 8
    weights_bytes: int = 1_000
    versions_per_s: float = 1.0
    beat_s: float = 1.0
    relays: int = 0


#: One load in which each cost weighs most, and one of little of everything. A call costs more on a connection that has
#: few: as many connections as with hundreds of actors.
SERVER_LOADS = {
    "little": Load(fragment_s=2.0),
    "leases": Load(MANY, fragment_s=0.8, fragment_steps=16),
    "hearts": Load(MANY, fragment_s=4.0, beat_s=0.4),
    "weights": Load(MANY, fragment_s=4.0, weights_bytes=2_000_000),
    "learner's calls": Load(fragment_s=2.0, versions_per_s=50.0),
}
RELAY_LOADS = {
    "little, relays": Load(fragment_s=2.0, relays=2),
    "leases, relays": Load(MANY, fragment_s=0.8, fragment_steps=16, relays=2),
    "hearts, relays": Load(MANY, fragment_s=4.0, beat_s=0.4, relays=2),
}
CARRIER_LOADS = {
    "little": Load(fragment_s=2.0),
    "records": Load(fragment_s=0.1, fragment_steps=16),
    "bytes": Load(fragment_s=0.5, fragment_steps=2048),
}
#: As fast as eight can: what the learner's process takes beyond every load that its costs come from.
FLAT_OUT = Load(8, fragment_s=0.001, fragment_steps=512)


def compared(actors: int) -> Load:
    return Load(actors, fragment_s=4.0, weights_bytes=1_000_000, versions_per_s=1.0)


def ahead(load: Load) -> int:
    """Fragments that may be begun beyond those accepted, so that nobody waits: those of two cycles, and what comes
    between two words of the learner's."""
    return round(4 * load.actors * (1 + 1 / load.fragment_s))


@dataclass(frozen=True)
class Seen:
    """A second of it: fragments, calls (``tells``: the learner's; ``calls``: all that come to the root), bytes, cores;
    and how long an actor waited for a lease, and for an acknowledgement."""

    fragments: float
    fragment_bytes: float
    steps: float
    next_calls: float
    beats: float
    tells: float
    calls: float
    weight_bytes: float
    relayed_bytes: float
    server_cores: float
    relays_cores: float
    learner_cores: float
    broker_cores: float
    clients_cores: float
    ask_s: float
    put_s: float


class Bench:
    """One measurement at a time, each with processes of its own; the broker stays."""

    def __init__(self, seconds: float, bootstrap: str, broker_pid: int) -> None:
        self._seconds, self._bootstrap, self._broker_pid = seconds, bootstrap, broker_pid
        self._number = 0

    def measure(self, load: Load, carrier: str) -> Seen:
        self._number += 1
        with Rig(f"scale-{self._number}") as rig:
            root, url = rig.server(), self._url(carrier, rig)
            relays = [rig.server(upstream=root) for _ in range(load.relays)]
            plan = Plan(root.address, rig.run_id, url, rig.folder, load.weights_bytes, load.versions_per_s,
                        ahead(load), load.fragment_steps, load.envs)  # fmt: skip
            learner = rig.start(learn, plan)
            learner.look()  # its source is open: a topic is there
            collects = {"url": url, "envs": load.envs, "fragment_steps": load.fragment_steps,
                        "fragment_s": load.fragment_s, "beat_s": load.beat_s}  # fmt: skip
            parts = shares(load.actors, min(load.actors, 2))
            asked = [(relays or [root])[i % (load.relays or 1)].address for i in range(len(parts))]
            crowds = rig.crowds([Crowd(address, rig.run_id, p.start, len(p), **collects)
                                 for address, p in zip(asked, parts, strict=True)])  # fmt: skip
            look(crowds)
            time.sleep(2 * load.fragment_s + WARM_UP_S)

            def now() -> tuple[dict[str, float], ...]:
                cpu = {"s": time.monotonic(), "broker": 0.0 if carrier == "local" else self._broker_cpu_s()}
                for relay in relays:
                    seen = relay.look()
                    cpu["relays"] = cpu.get("relays", 0.0) + seen["cpu_s"]
                    cpu["relays_bytes"] = cpu.get("relays_bytes", 0.0) + seen["weights_bytes_total"]
                return look(crowds)[0], learner.look(), root.look(), cpu

            before = now()
            time.sleep(max(self._seconds, CYCLES * load.fragment_s))
            after = now()
            if any("refused" in name for name in after[1]) or any("errors" in name for name in after[0]):
                print(f"  refused or failed: {after[1]} {after[0]}", flush=True)
            return _seen(*(growth(*pair) for pair in zip(before, after, strict=True)))

    def _url(self, carrier: str, rig: Rig) -> str:
        if carrier == "local":
            return f"local://{rig.folder}/t"
        return f"kafka://{self._bootstrap}/{rig.run_id}?client={carrier}&partitions={PARTITIONS}"

    def _broker_cpu_s(self) -> float:
        times = psutil.Process(self._broker_pid).cpu_times()
        return float(times.user + times.system)


def _seen(crowds: dict[str, float], learner: dict[str, float], root: dict[str, float], cpu: dict[str, float]) -> Seen:
    each_s, leases = 1 / cpu["s"], max(1.0, crowds.get("leases", 0))
    return Seen(
        learner.get("fragments", 0) * each_s,
        crowds.get("put_bytes", 0) * each_s,
        learner.get("steps", 0) * each_s,
        crowds.get("next_calls", 0) * each_s,
        crowds.get("beats", 0) * each_s,
        learner["tells"] * each_s,
        (crowds.get("next_calls", 0) + crowds.get("beats", 0) + learner["tells"]) * each_s,
        root["weights_bytes_total"] * each_s,
        cpu.get("relays_bytes", 0.0) * each_s,
        root["cpu_s"] * each_s,
        cpu.get("relays", 0.0) * each_s,
        learner["cpu_s"] * each_s,
        cpu["broker"] * each_s,
        crowds["cpu_s"] * each_s,
        crowds.get("asked_us", 0) / leases / 1e6,
        crowds.get("put_us", 0) / leases / 1e6,
    )
