"""Where the log ends is asked every second, and no record waits for the answer."""

from __future__ import annotations

import contextlib
import time
import uuid
from pathlib import Path

import pytest

from headrace.common.metrics import Metrics
from headrace.common.transport import open_sink, open_source
from headrace.common.transport.kafka_source import ENDS_EVERY_S

from .carriers import LIMITS
from .samples import trajectory


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_no_record_waits_for_what_is_asked(real_kafka: str, tmp_path: Path, client: str) -> None:
    """Whoever collects only when the last fragment was used is as slow as the slowest of them. A question that comes
    after a fetch of the same connection is answered after it, half a second later where that finds nothing."""
    url = f"kafka://{real_kafka}/asking-{uuid.uuid4().hex[:12]}?client={client}"
    source = open_source(url, limits=LIMITS, metrics=Metrics("learner"), dead_letter=tmp_path, group="asking")
    sink = open_sink(url, limits=LIMITS, metrics=Metrics("actor"), key="0")
    took_s = []
    with contextlib.ExitStack() as ends:
        ends.callback(source.close)
        ends.callback(sink.close, 5.0)
        until_s = time.monotonic() + 5 * ENDS_EVERY_S
        while time.monotonic() < until_s:
            began_s = time.monotonic()
            sink.put(trajectory(len(took_s)), 10.0)
            assert source.get(10.0) is not None
            took_s.append(time.monotonic() - began_s)
            time.sleep(0.05)
    assert max(took_s[1:]) < 0.8, sorted(took_s)[-5:]
