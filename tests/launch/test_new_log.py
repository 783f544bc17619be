"""A log that is lost while the checkpoint is whole: the run says so, and goes on with a new log when it is told to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

from tests.common import independent
from tests.faults.run import Run


def test_a_lost_topic_is_gone_on_without_by_new_log(new_run: Callable[..., Run], kafka_bootstrap: str) -> None:
    topic = f"faults-{uuid.uuid4().hex[:12]}"
    run = new_run("ppo", f"transport.url='kafka://{kafka_bootstrap}/{topic}?partitions=2'")
    train = run.train()
    run.wait_until(lambda: run.version >= 20 and run.checkpoints(), "a checkpoint")
    train.terminate()
    assert run.end(train) == (0, "")
    before = run.checkpoint()
    assert sum(before.info["positions"].values()) > 20
    independent.delete_topic(kafka_bootstrap, topic)

    code, said = run.end(run.train(resume=True))
    assert code != 0
    assert "position" in said, "the checkpoint's positions are of another log"
    assert "go on with a new log by --resume --new-log" in said

    train = run.train("--new-log", resume=True)
    run.wait_until(lambda: run.version >= before.info["counters"]["version"] + 20, "it goes on")
    train.terminate()
    assert run.end(train) == (0, "")
    after = run.checkpoint()
    assert after.info["counters"]["fragments"] > before.info["counters"]["fragments"]
    assert "stale" not in after.info["counters"]["rejected"]
    (line,) = [json.loads(line) for line in (run.dir / "history.jsonl").read_text().splitlines()]
    assert (line["key"], line["new"]) == ("log", run.config.transport.url)
    assert line["former"]["positions"] == before.info["positions"]
    assert line["former"]["records_lost"] == "unknown"
    assert "--new-log: reads kafka://" in (run.dir / "logs" / "learner-0.log").read_text()
