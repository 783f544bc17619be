"""A run on several hosts. Lines go slow or dead, machines vanish, nobody is told (no RST), and the run goes on."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.faults.run import assert_nothing_twice_nothing_late, refused

from .network import Network
from .run import HostBroker, HostRun, NewRun, all_alive

pytestmark = pytest.mark.timeout(300)
EVERYBODY = ("paramserver", "learner", "actor1", "actor2")
#: Fragments under way when something happens are those of the versions that follow: two, with max_staleness 1.
UNDER_WAY_VERSIONS = 2
#: From the moment a broken line or host is there again.
BACK_S = 30.0


def end(run: HostRun, learner: subprocess.Popen[str]) -> None:
    """The learner ends well, and its books are right: late fragments were refused, none was trained on twice."""
    learner.terminate()
    code, said = run.end(learner)
    assert code == 0, said
    counters = run.checkpoint().info["counters"]
    assert counters["fragments"] == counters["version"] * run.config.algorithm_config().fragments
    assert max(row["staleness_max"] for row in run.rows) <= run.config.learner.max_staleness


def test_every_host_has_its_part_in_a_run(new_run: NewRun, network: Network) -> None:
    run = new_run()
    started = run.begin(*EVERYBODY)
    before = {actor: run.put(actor) for actor in ("actor1", "actor2")}
    run.beyond(50, 60.0)
    assert all(run.put(actor) > before[actor] for actor in before), "each delivers"
    assert run.value("paramserver", "weights_bytes_total") > 0
    assert all_alive(started)
    end(run, started["learner"])
    assert_nothing_twice_nothing_late(run)
    assert refused(run.checkpoint()) == 0


def test_behind_a_slow_line_versions_are_left_out_and_nothing_piles_up(new_run: NewRun, network: Network) -> None:
    """A version is 0.3 MB: two and a half seconds at 1 Mbit/s, in which the others make several."""
    run = new_run("kafka-python", "algorithm.hidden=[256,256]", "learner.max_staleness=4")
    network.slow("actor2", "1mbit")
    started = run.begin(*EVERYBODY)
    run.wait_until(lambda: run.put("actor2") > 1, "the slow one delivers")
    before, put = run.memory(*EVERYBODY), run.put("actor2")
    skipped = run.value("paramserver", "weights_skipped_versions_total")
    _, made = run.made_in(20.0)
    after = run.memory(*EVERYBODY)
    assert made > 20, "the run goes on"
    assert run.put("actor2") > put + 2, "with the slow one"
    assert run.value("paramserver", "weights_skipped_versions_total") > skipped
    assert {host: after[host] - before[host] for host in after if after[host] - before[host] > 16.0} == {}
    assert all_alive(started)
    end(run, started["learner"])


@pytest.mark.parametrize("how", ["its line is cut", "its power fails"])
def test_an_actor_host_vanishes_and_comes_back(new_run: NewRun, network: Network, how: str) -> None:
    run = new_run()
    started = run.begin(*EVERYBODY)
    weights = run.config.weights
    if how == "its line is cut":
        network.cut("actor2")
    else:
        network.power_off("actor2")
        run.end(started.pop("actor2"))
    took_s = run.beyond(UNDER_WAY_VERSIONS + 1, weights.lease_ttl_s + weights.delivery_s + 5.0)
    print(f"{how}: a version more than was under way after {took_s:.1f} s")
    assert run.made_in(8.0)[1] > 10, "the others go on as if it had never been there"
    if how == "its line is cut":
        before = run.put("actor2")
        network.mend("actor2")
    else:
        network.power_on("actor2")
        before, started["actor2"] = 0.0, run.on("actor2")
    began_s = time.monotonic()
    run.wait_until(lambda: run.put("actor2") > before + 10, "it is used again", BACK_S)
    print(f"{how}: used again {time.monotonic() - began_s:.1f} s after its return")
    assert all_alive(started)
    end(run, started["learner"])


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_the_broker_host_vanishes_and_comes_back(
    new_run: NewRun, network: Network, broker: HostBroker, client: str
) -> None:
    """First its line is dead for a while, then its power fails: who is connected to its former life is never told."""
    run = new_run(client)
    started = run.begin(*EVERYBODY)
    network.cut("broker")
    assert run.made_in(15.0)[1] <= UNDER_WAY_VERSIONS
    network.mend("broker")
    print(f"{client}: 20 versions {run.beyond(20, BACK_S):.1f} s after its line was mended")
    network.power_off("broker")
    time.sleep(8.0)
    network.power_on("broker")
    broker.start()
    print(f"{client}: 20 versions {run.beyond(20, BACK_S):.1f} s after it answered again")
    assert all_alive(started), "nobody had to be started again"
    end(run, started["learner"])


def test_the_broker_host_vanishes_in_the_middle_of_handshakes(
    new_run: NewRun, network: Network, broker: HostBroker
) -> None:
    """It freezes, so that everybody connects anew and waits for its side of TLS; then it is gone. Nothing is under way
    on those connections that could be sent again, and so meet a host that does not know them."""
    run = new_run("kafka-python", tls=True)
    started = run.begin(*EVERYBODY)
    broker.freeze()
    time.sleep(25.0)  # longer than any client waits for an answer
    network.power_off("broker")
    network.power_on("broker")
    broker.start()
    print(f"20 versions {run.beyond(20, BACK_S):.1f} s after it answered again")
    assert all_alive(started), "nobody had to be started again"
    end(run, started["learner"])


def test_the_parameter_servers_host_is_cut_off_for_a_while(new_run: NewRun, network: Network) -> None:
    run = new_run()
    started = run.begin(*EVERYBODY)
    network.cut("paramserver")
    assert run.made_in(20.0)[1] <= UNDER_WAY_VERSIONS
    network.mend("paramserver")
    print(f"20 versions {run.beyond(20, BACK_S):.1f} s after its line was mended")
    assert all_alive(started)
    end(run, started["learner"])
