"""Judges a history (history.py), without the run: which of the promises were not kept, a line each.

python -m tests.faults.checker FILE [--max-staleness 1] [--growth-bytes N]     a history that a test has kept
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.faults.history import Fragment, History, Made, load

#: Samples of a process's memory that are not looked at: it starts.
WARM_UP = 10
#: What honest actors may be refused for while others kill them.
HONEST = ("stale", "duplicate")


def problems(history: History, max_staleness: int, growth_bytes: int, honest: Iterable[str] = HONEST) -> list[str]:
    """Empty when every promise was kept. ``growth_bytes``: how much more memory a process may come to hold."""
    checks: list[Callable[[History], Iterator[str]]] = [
        nothing_acknowledged_is_lost,
        nothing_below_the_positions_is_left_out,
        nothing_is_applied_twice,
        nothing_is_invented,
        versions_go_forward,
        epochs_go_forward,
        lambda h: staleness_is_bounded(h, max_staleness),
        parameters_are_finite,
        lambda h: memory_is_bounded(h, growth_bytes),
        lambda h: refused_for(h, honest),
    ]
    return [said for check in checks for said in check(history)]


def lineage(history: History) -> list[Made]:
    """The versions that the run is made of: a version is undone when a later life of the learner began before it."""
    return [
        made
        for made in sorted(history.made)
        if not any(epoch > made.epoch and version < made.version for epoch, version in history.began)
    ]


def applied(history: History) -> list[Fragment]:
    return [fragment for made in lineage(history) for fragment in made.fragments]


def nothing_acknowledged_is_lost(history: History) -> Iterator[str]:
    there = {record.fragment for record in history.log}
    yield from (f"acknowledged, and not in the log: {lost}" for lost in history.acked if lost not in there)


def nothing_below_the_positions_is_left_out(history: History) -> Iterator[str]:
    """Every record below the checkpoint's positions was applied, or refused and counted."""
    done = set(applied(history))
    below = [r for r in history.log if r.offset < history.positions.get(r.partition, 0)]
    left = [r for r in below if r.fragment not in done]
    counted = sum(history.counters.get("rejected", {}).values())
    if len(left) > counted:
        yield f"{len(left)} records below the positions were not applied, {counted} refused; the first: {left[0]}"
    yield from (f"left out, its lease not even spent: {r}" for r in left if not _spent(history, r.fragment.lease))


def nothing_is_applied_twice(history: History) -> Iterator[str]:
    """By name, by lease, and by the learner's own count."""
    done = applied(history)
    for what, counts in (("fragment", Counter(f[:3] for f in done)), ("lease", Counter(f.lease for f in done))):
        yield from (f"{what} {name} was applied {n} times" for name, n in counts.items() if n > 1)
    if len(done) != (told := history.counters.get("fragments", 0)):
        yield f"{len(done)} fragments were applied, the checkpoint counts {told}"


def nothing_is_invented(history: History) -> Iterator[str]:
    """What was applied was taken from the log, what was taken stands in it, and what stands in it was sent."""
    sent, log = set(history.sent), set(history.log)
    taken = {record.fragment for record in history.taken}
    yield from (f"in the log, and never sent: {r}" for r in history.log if r.fragment not in sent)
    yield from (f"taken, and not in the log: {r}" for r in set(history.taken) if r not in log)
    yield from (f"applied, and never taken: {f}" for f in applied(history) if f not in taken)


def versions_go_forward(history: History) -> Iterator[str]:
    """Each life of the learner counts on from where it began, and the last version is the checkpoint's."""
    for epoch, began in history.began:
        made = [m.version for m in history.made if m.epoch == epoch]
        if made != list(range(began + 1, began + 1 + len(made))):
            yield f"epoch {epoch} began at version {began} and made {made[:20]}"
    made = [m.version for m in lineage(history)]
    if made and made[-1] != history.counters.get("version"):
        yield f"the last version is {made[-1]}, the checkpoint's {history.counters.get('version')}"
    for before, after in itertools.pairwise(made):
        if after != before + 1:
            yield f"version {before} is followed by {after}"


def epochs_go_forward(history: History) -> Iterator[str]:
    """No two lives of the learner have the same, and no actor sees an older one, or an older version of one."""
    epochs = [epoch for epoch, _ in history.began]
    yield from (f"{n} lives of the learner are epoch {epoch}" for epoch, n in Counter(epochs).items() if n > 1)
    for life in history.weights:
        yield from (
            f"an actor received {now} after {before}" for before, now in itertools.pairwise(life) if now <= before
        )


def staleness_is_bounded(history: History, max_staleness: int) -> Iterator[str]:
    """As the learner says, and, for fragments of its own epoch, as their stamps say."""
    for made in history.made:
        ours = [made.version - 1 - f.policy_version for f in made.fragments if f.epoch == made.epoch]
        if (oldest := max([made.staleness, *ours])) > max_staleness:
            yield f"version {made.version} of epoch {made.epoch} is made of a fragment {oldest} versions old"


def parameters_are_finite(history: History) -> Iterator[str]:
    yield from (f"not finite: {name}" for name in history.not_finite)


def memory_is_bounded(history: History, growth_bytes: int) -> Iterator[str]:
    for process, samples in history.memory_bytes.items():
        warm = samples[WARM_UP:]
        if warm and (grown := max(warm) - warm[0]) > growth_bytes:
            yield f"{process} grew by {grown} bytes, {growth_bytes} allowed"


def refused_for(history: History, honest: Iterable[str]) -> Iterator[str]:
    for reason, n in history.counters.get("rejected", {}).items():
        if reason not in honest:
            yield f"{n} honest fragments were refused: {reason}"


def _spent(history: History, lease: int) -> bool:
    return any(first <= lease < end for first, end in history.spent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--max-staleness", type=int, default=1)
    parser.add_argument("--growth-bytes", type=int, default=128 << 20)
    args = parser.parse_args()
    found = problems(load(args.file), args.max_staleness, args.growth_bytes)
    print("\n".join(found) or "every promise was kept")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
