"""Does a call cost the ledger more where there are more workers? CPU time of each step, with 100, 1,000 and 10,000.

python bench/ledger_growth.py [--json]                                  -> bench/results/ledger_growth.json

lease     a worker has put its fragment and begins the next            microseconds a worker
beat      it is alive                                                  microseconds a worker
waiting   a lease is asked for while so many wait for one in vain      microseconds a question
version   the learner's word and the answer to it, a quarter put       milliseconds
upkeep    four times a second                                          milliseconds
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable

from hardware import save

from headrace.common.weights.base import Progress
from headrace.paramserver.ledger import Ledger
from headrace.paramserver.line import Line
from headrace.paramserver.store import LeaseRequest, Store, Version, Writer

SIZES, ROUNDS = (100, 1_000, 10_000), 5
Row = dict[str, float]


def grow(workers: int) -> Row:
    """The least of :data:`ROUNDS`."""
    ledger = Ledger()
    ledger.admit_until = workers * (ROUNDS + 2)
    held = [ledger.begin(worker, 1, 0.0) for worker in range(workers)]
    quarter, rows = range(workers // 4), list[Row]()
    for _ in range(ROUNDS):
        heard = ledger.next_lease

        def turn() -> None:
            for worker in quarter:
                held[worker] = ledger.begin(worker, 1, 0.0, (held[worker] or 0,))

        def version(heard: int = heard) -> None:
            spent = tuple((number, number + 1) for number in sorted(ledger.out.put))
            ledger.admit(Progress(ledger.admit_until, spent=spent), 0.0)
            ledger.state(heard)

        rows.append({
            "lease_us": 1e6 * cpu_s(turn) / len(quarter),
            "beat_us": 1e6 * cpu_s(lambda: [ledger.beat(worker, 1, 0.0) for worker in range(workers)]) / workers,
            "version_ms": 1e3 * cpu_s(version),
            "upkeep_ms": 1e3 * cpu_s(lambda: ledger.expire(0.0)),
        })  # fmt: skip
    return {name: round(min(row[name] for row in rows), 2) for name in rows[0]}


async def in_vain(workers: int, questions: int = 200) -> float:
    """Microseconds that a look at the line takes while nobody can be served."""
    store: Store[bytes] = Store(Ledger())
    store.publish(Writer("r", 1, 1), Version(1, 0, b"", b""), Progress(0), None, 0.0)
    line = Line(store, time.monotonic)  # type: ignore[arg-type]
    asks = [LeaseRequest("r", worker, 1, (), (1, 0)) for worker in range(workers)]
    waiting = [asyncio.create_task(line.wait(ask, 60.0)) for ask in asks]
    await asyncio.sleep(0)
    took_s = cpu_s(lambda: [line.serve() for _ in range(questions)])
    line.close()
    await asyncio.gather(*waiting, return_exceptions=True)
    return round(1e6 * took_s / questions, 2)


def cpu_s(do: Callable[[], object]) -> float:
    began_s = time.process_time()
    do()
    return time.process_time() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="keep the result in bench/results/ledger_growth.json")
    args = parser.parse_args()
    found = {}
    for workers in SIZES:
        found[workers] = grow(workers) | {"waiting_us": asyncio.run(in_vain(workers))}
        print(f"{workers:6,} workers  " + "  ".join(f"{name} {value}" for name, value in found[workers].items()))
    if args.json:
        print(save("ledger_growth", {"workers": found}).name)


if __name__ == "__main__":
    main()
