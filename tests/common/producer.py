"""A producer process for the carriers' tests: puts numbered fragments and says so, line by line.

python producer.py URL ACTOR_ID COUNT T    (COUNT 0: until killed)
"""

from __future__ import annotations

import itertools
import sys

from samples import trajectory

from headrace.common.metrics import Metrics
from headrace.common.transport import Limits, open_sink


def main() -> None:
    url, actor_id, count, T = sys.argv[1], *map(int, sys.argv[2:])
    sink = open_sink(url, limits=Limits(), metrics=Metrics("actor"), key=str(actor_id))
    for seq in range(count) if count else itertools.count():
        sink.put(trajectory(seq, T=T, actor_id=actor_id), timeout_s=60)
        print(f"put {seq}", flush=True)
    sink.close(timeout_s=60)


if __name__ == "__main__":
    main()
