"""kill -9 of a relay: its actors turn to the next parent, within the staleness bound, and to it again later."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.run import Run, assert_nothing_twice_nothing_late
from tests.faults.test_kill_paramserver import held
from tests.ports import free_port


def test_actors_turn_from_relay_to_relay_and_nothing_is_late(new_run: Callable[..., Run]) -> None:
    ports = [free_port() for _ in range(3)]
    root, *relays = (f"127.0.0.1:{port}" for port in ports)
    run = new_run("ppo", f"weights.address={root}")

    def relay(index: int) -> None:
        run.role("paramserver", "--upstream", root, "--set", f"weights.address={relays[index]}", "--index", str(index))

    run.role("paramserver")
    for index in range(2):
        relay(index)
    learner = run.role("learner")
    for index in range(2):
        run.role("actor", "--index", str(index), "--set", f"weights.address={','.join(relays)}")
    run.wait_for_version(30)
    assert held(run, "relay", "weights_bytes_total") > 0, "the first of the list"
    assert held(run, "relay", "weights_bytes_total", 1) == 0
    lives = [run.pid("actor", index) for index in range(2)]
    for index in (0, 1, 0):
        run.kill("relay", index)
        came = run.version
        run.wait_until(lambda v=came: run.version > v + 30, "they go on by the other one", timeout_s=20)
        relay(index)
        run.wait_until(lambda i=index: run.pid("relay", i) is not None, "it is back")
    assert [run.pid("actor", index) for index in range(2)] == lives
    newest = held(run, "paramserver", "weights_version")
    for index in range(2):
        run.wait_until(
            lambda i=index, v=newest: held(run, "actor", "actor_policy_version", i) >= v, "the newest version",
            timeout_s=10,
        )  # fmt: skip
    learner.terminate()
    code, said = run.end(learner)
    assert code == 0, said
    assert_nothing_twice_nothing_late(run)
