"""What stands on the dashboard, row by row: from "is it learning?" down to what only somebody who mends it asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from panels import bars, by_role, lines, m, number, quantiles, rate, rows_of

ACTOR, OURS = 'role="actor"', 'job="headrace"'
PUT, GOT = 'direction="put"', 'direction="got"'
P50_95 = ((0.5, "median"), (0.95, "p95"))
LE, NOT_HERE = 'le=~"{}"', "this algorithm reports none"
TERM, NOT_TERM = 'term=~"{}"', 'term!~"{}"'


def overview() -> list[Any]:
    """Is it learning, how fast, and what holds it up: one look."""
    progress = f"max({m('learner_progress_ratio')})"
    speed = f"(max(deriv({m('learner_progress_ratio')}[5m])) > 0)"
    checkpoint = f"max({m('checkpoint_last_timestamp_seconds')} > 0)"
    return [
        number("Bottleneck", "What is busy for the largest share of the time sets the pace: the verdict of `headrace status` "
               "over the last minute. 'balanced': actors and learner are both busy.", "percentunit",
               [(m("headrace:bottleneck:share1m"), "{{verdict}}")], width=6, named=True, colour="blue", none="no learner"),
        number("Return", "Mean undiscounted return of the last 100 finished episodes (they explore).", "short",
               [(f"max({m('learner_episode_return')})", "return")], decimals=1, colour="orange"),
        number("Greedy return", "Mean return of the evaluator's last greedy evaluation, on unseen seeds.", "short",
               [(f"max({m('evaluator_return')})", "greedy")], decimals=1, colour="yellow", none="no evaluator"),
        number("Progress", "Environment steps trained on, of all the run is to have.", "percentunit",
               [(progress, "progress")], decimals=1),
        number("Time left", "At the speed of the last five minutes.", "s", [(f"(1 - {progress}) / {speed}", "time left")],
               decimals=0, none="standing still"),
        number("Actors", "Actor processes that answer.", "short", [(f"count({m('role_info', ACTOR)})", "processes")],
               none="none", thresholds=((None, "red"), (1, "blue"))),
        number("Checkpoint age", "Time since the newest complete one: what a learner that dies would learn again.", "s",
               [(f"time() - {checkpoint}", "age")], decimals=0,
               thresholds=((None, "green"), (120, "yellow"), (600, "red"))),
        lines("Return", "Training: mean undiscounted return of the last 100 finished episodes. Greedy: the evaluator's last "
              "evaluation, on unseen seeds and without exploration.", "short",
              [(f"max({m('learner_episode_return')})", "training"), (f"max({m('evaluator_return')})", "greedy")],
              limits=(None, None)),
        lines("Speed", "Environment steps a second: collected by all actors, and trained on by the learner. Curves that part "
              "for long: leases are given up, or fragments refused.", "short",
              [(f"sum({rate('actor_env_steps_total')})", "actors"),
               (f"sum({rate('learner_env_steps_total')})", "learner")]),
        bars("How busy is each part of the loop?", "The share of its time that each part works. The largest sets the pace. "
             "actors: environment and policy. learner: update, assemble, checkpoint. weights: publication, and what no part "
             "explains while both ends wait. carrier: put and acknowledgement, as far as the learner waits.", "percentunit",
             [(m("headrace:loop_part:share1m"), "{{part}}")]),
    ]  # fmt: skip


def balance() -> list[Any]:
    return [
        lines("How busy was each part?", "The bars above over time. Where two curves cross, the bottleneck changes.",
              "percentunit", [(m("headrace:loop_part:share1m"), "{{part}}")], limits=(0, 1)),
        lines("Where the learner's time goes", "Mostly wait: more actors help. Mostly update: they do not.",
              "percentunit", [(m("headrace:learner_phase:share1m"), "{{phase}}")], stacked=True, limits=(0, 1)),
        lines("Where the actors' time goes", "The mean over all actors. Mostly lease: they are ahead of the learner and wait "
              "for it, as they should. Mostly put: the carrier holds them up.", "percentunit",
              [(m("headrace:actor_phase:share1m"), "{{phase}}")], stacked=True, limits=(0, 1)),
        lines("Fragments", "Handed to the carrier by actors, and admitted by the learner, a second.", "short",
              [(f"sum({rate('actor_fragments_total')})", "actors"),
               (f"sum({rate('learner_fragments_total')})", "learner")]),
        lines("Updates and reuse", "Versions made a second; and (right) how many samples of gradient steps come from one step "
              "of an environment: 1 for PPO, whose epochs go over the same batch, samples_per_insert for DQN.", "short",
              [(f"sum({rate('learner_updates_total')})", "versions a second"),
               (f"sum({rate('learner_samples_total')}) / sum({rate('learner_env_steps_total')})", "samples per step")],
              units={"samples per step": "short"}),
        lines("Speed of an actor", "Environment steps a second of the slowest, the middle and the fastest actor. A slow one "
              "among fast ones: a busy machine, or long episodes.", "short",
              [(f"{how}{rate('actor_env_steps_total')})", name)
               for how, name in (("min(", "slowest"), ("quantile(0.5, ", "median"), ("max(", "fastest"))]),
    ]  # fmt: skip


def staleness() -> list[Any]:
    stale, admitted = rate("learner_rejected_total", 'reason="stale"'), rate("learner_fragments_total")

    def share(up_to: str, beyond: str = "") -> str:
        """Of the fragments older than ``beyond`` and at most ``up_to``. (Buckets are cumulative.)"""
        def bucket(le: str) -> str:
            return f"sum({rate('learner_staleness_versions_bucket', LE.format(le))})" if le else "0"

        return f"({bucket(up_to)} - {bucket(beyond)}) / sum({rate('learner_staleness_versions_count')})"

    ages = [("0", share("0|0.0")), ("1", share("1|1.0", "0|0.0")), ("2", share("2|2.0", "1|1.0")),
            ("3 and 4", share("4|4.0", "2|2.0")), ("more", share("[+]Inf", "4|4.0"))]  # fmt: skip
    mean = f"sum({rate('learner_staleness_versions_sum')}) / sum({rate('learner_staleness_versions_count')})"
    return [
        lines("How old is what is trained on?", "Shares of the fragments by the versions that were made since the oldest of "
              "their steps. Never more than learner.max_staleness.", "percentunit",
              [(expression, age) for age, expression in ages], stacked=True, limits=(0, 1)),
        lines("Staleness, and thrown away as too old", "Mean versions; and (right) the share of fragments beyond the bound, whose "
              "lease was given up before they came. That is zero in good health: actors are paced, data is not thrown away.",
              "suffix: versions",
              [(mean, "mean"), (f"sum({stale}) / (sum({stale}) + sum({admitted}))", "refused as stale")],
              units={"refused as stale": "percentunit"}, soft_max=1),
        lines("How far off-policy?", "Approximate KL from the policy that acted to the one that learns; and (right) the share of "
              "samples whose ratio was clipped.", "short",
              [(m("learner_train", 'term=~"kl|reference_kl|clip_fraction"'), "{{term}}")],
              units={"clip_fraction": "percentunit"}, none=NOT_HERE),
    ]  # fmt: skip


def algorithm() -> list[Any]:
    shown = "kl|reference_kl|clip_fraction|entropy|explained_variance|td_error|q|.*loss|grad_norm|learning_rate"

    def terms(which: str, negated: bool = False) -> list[tuple[str, str]]:
        return [(m("learner_train", (NOT_TERM if negated else TERM).format(which)), "{{term}}")]

    return [
        lines("Entropy", "Of the policy. To nothing early on: it stopped exploring.", "short", terms("entropy"), none=NOT_HERE),
        lines("Value function", "Explained variance of the critic (1: perfect, 0: no better than a constant); or DQN's TD "
              "error and (right) mean Q.", "short", terms("explained_variance|td_error|q"), limits=(None, None),
              units={"q": "short"}, none=NOT_HERE),
        lines("Losses", "Of the last gradient step.", "short", terms(".*loss"), limits=(None, None), none=NOT_HERE),
        lines("Norm of the gradient", "Before it is clipped. Rising without end: lower the learning rate.", "short",
              terms("grad_norm")),
        lines("Learning rate", "By its schedule.", "sci", terms("learning_rate"), decimals=2),
        lines("Everything else it reports", "Of the last update, what no other panel shows.", "short",
              terms(shown, negated=True), none="nothing else"),
    ]  # fmt: skip


def episodes() -> list[Any]:
    return [
        lines("Episode length", "Environment steps of finished episodes (within the buckets of a histogram).", "suffix: steps",
              quantiles("actor_episode_steps", (0.1, "p10"), (0.5, "median"), (0.9, "p90"))),
        lines("Episodes", "Finished a second by all actors together; and (right) their mean length.", "short",
              [(f"sum({rate('actor_episodes_total')})", "episodes a second"),
               (f"sum({rate('actor_episode_steps_sum')}) / sum({rate('actor_episode_steps_count')})", "mean length")],
              units={"mean length": "suffix: steps"}),
        lines("The evaluator is behind", "Versions made since the one that was evaluated last.", "suffix: versions",
              [(f"clamp_min(max({m('learner_policy_version')}) - max({m('evaluator_policy_version')}), 0)", "evaluator")],
              none="no evaluator"),
    ]  # fmt: skip


def weights() -> list[Any]:
    def behind(version: str) -> str:
        """(Roles are not scraped at the same moment.)"""
        return f"clamp_min(max({m('learner_policy_version')}) - {version}, 0)"

    to_give = f"sum({m('leases_admit_until')}) - sum({m('leases_issued_total')}) + sum({m('leases_expired_total')})"
    return [
        lines("Versions behind the learner", "What the parameter server holds, and what the actors act with, against the newest "
              "version.", "suffix: versions",
              [(behind(f"max({m('weights_version')})"), "parameter server"),
               (behind(f"quantile(0.5, {m('actor_policy_version')})"), "median actor"),
               (behind(f"min({m('actor_policy_version')})"), "slowest actor")]),
        lines("Publication", "From handing a version to the publisher until the parameter server has answered; it overlaps "
              "with the next update.", "s", quantiles("weights_publish_seconds", *P50_95)),
        lines("Sent to subscribers", "Bytes of weights a second; and (right) versions made, and versions that somebody never "
              "asked for because a newer one was there.", "Bps",
              [(f"sum({rate('weights_bytes_total')})", "weights"),
               (f"sum({rate('weights_encodes_total')})", "versions a second"),
               (f"sum({rate('weights_skipped_versions_total')})", "skipped a second")],
              units={"versions a second": "short", "skipped a second": "short"}),
        lines("Wait for a lease", "How long a worker waits until it may begin its next fragment. Long waits are the pacing at "
              "work: the learner is the slower one.", "s", quantiles("actor_lease_wait_seconds", *P50_95)),
        lines("Leases", "out: their fragments did not come yet. to give: may be begun at once. Nothing to give: the bound on "
              "staleness holds the actors back.", "short",
              [(f"sum({m('leases_out')})", "out"), (f"clamp_min({to_give}, 0)", "to give")]),
        lines("Subscribers", "Streams and waiting calls open at the parameter server.", "short",
              [(f"sum({m('weights_subscribers')})", "parameter server")]),
        lines("Waited for", "How long the oldest lease has been out, and for how long its worker has not been heard of.", "s",
              [(f"max({m('lease_oldest_seconds')})", "out for"),
               (f"max({m('lease_oldest_silent_seconds')})", "silent for")], width=16, bad_above=60),
        number("Whose lease is that?", "Number of the worker whose fragment is missing for longest. Worker n belongs to actor "
               "n / actors.workers.", "none", [(f"max({m('lease_oldest_worker')})", "worker")], width=8, height=8,
               mappings={"-1": "nobody's"}),
    ]  # fmt: skip


def carrier() -> list[Any]:
    put, records = f"sum({rate('transport_bytes_total', PUT)})", f"sum({rate('transport_records_total', PUT)})"
    blocked = f"sum({rate('transport_blocked_seconds_total')}) / sum({rate('actor_phase_seconds_total')})"
    return [
        lines("Bytes", "Encoded trajectories a second, into the carrier and out of it.", "Bps",
              [(put, "put"), (f"sum({rate('transport_bytes_total', GOT)})", "got")]),
        lines("Size of a record", "Mean encoded bytes of a fragment; and (right) records a second.", "bytes",
              [(f"{put} / {records}", "bytes a record"), (records, "records a second")],
              units={"records a second": "short"}),
        lines("Lag", "Records in the log that the learner has not read yet, by partition.", "short",
              [(m("transport_lag_records"), "partition {{partition}}")], none="no log: not through Kafka"),
        lines("Acknowledgement", "From put until the broker (Kafka) or the learner (local) has it.", "s",
              quantiles("transport_ack_seconds", *P50_95)),
        lines("put() waits for room", "Share of the actors' time in which it did, because the byte budget was full.",
              "percentunit", [(blocked, "waits")], soft_max=0.2, bad_above=0.1),
        lines("Held in memory", "Put and not acknowledged, by all actors; received and not trained on, by the learner; and "
              "(right) the learner's queue in fragments.", "bytes",
              [(f"sum({m('transport_unacked_bytes')})", "not acknowledged"),
               (f"sum({m('transport_queue_bytes')})", "received"),
               (f"sum({m('learner_queue_fragments')})", "fragments queued")],
              units={"fragments queued": "short"}),
    ]  # fmt: skip


def machine() -> list[Any]:
    cores = f"rate({m('process_cpu_seconds_total', OURS)}[$__rate_interval])"
    fds = by_role(f"{m('process_open_fds')} / {m('process_max_fds')}")
    role = f"max by (instance, role) ({m('role_info')})"
    build = f"max by (instance, version, python, torch, commit) ({m('build_info')})"
    return [
        lines("Processor", "Cores' worth of time that the processes of a role take together. (XX
              "environments start in processes of their own.", "suffix: cores",
              [(f"sum by (role) ({by_role(cores)})", "{{role}}")], stacked=True, decimals=2),
        lines("Memory", "Resident memory of the processes of a role together.", "bytes",
              [(f"sum by (role) ({by_role(m('process_resident_memory_bytes'))})", "{{role}}")], stacked=True),
        lines("File descriptors", "Open, of what may be open, in the fullest process of each role.", "percentunit",
              [(f"max by (role) ({fds})", "{{role}}")], bad_above=0.8),
        lines("GPU", "Share of the time in which the learner's GPU computed anything.", "percentunit",
              [(m("gpu_utilization_ratio"), "busy")], limits=(0, 1), none="no GPU"),
        lines("GPU memory", "Taken on the learner's GPU, by whomever, and all there is.", "bytes",
              [(m("gpu_memory_used_bytes"), "used"), (m("gpu_memory_total_bytes"), "all")], none="no GPU"),
        lines("GPU power and temperature", "At its limits a card slows itself down.", "watt",
              [(m("gpu_power_watts"), "power"), (m("gpu_temperature_celsius"), "temperature")],
              units={"temperature": "celsius"}, none="no GPU"),
        rows_of("Who runs", "Every process that answers: what it is, what it runs, since when, and what it takes.",
                {"up for": (f"max by (instance) ({m('up_seconds')})", "s"),
                 "since": (f"max by (instance) ({m('process_start_time_seconds', OURS)}) * 1000", "dateTimeAsIso"),
                 "cores": (f"max by (instance) ({cores})", "none"),
                 "memory": (f"max by (instance) ({m('process_resident_memory_bytes', OURS)})", "bytes")},
                {"role": role, "instance": role, "version": build, "python": build, "torch": build, "commit": build}),
    ]  # fmt: skip


def errors() -> list[Any]:
    def lately(name: str, window: str) -> str:
        return f"sum(increase({m(name)}[{window}]))"

    refused = f"increase({m('learner_rejected_total')}[1m])"
    none = f"sum({refused}) == 0"  # so that 14 reasons do not take the room of a legend
    restarts = by_role(f"changes({m('process_start_time_seconds', OURS)}[15m])")
    return [
        lines("Fragments refused", "By reason, a minute; what they were and why is in dead_letter/. A duplicate is no loss: a "
              "learner that goes on reads what it has trained on already.", "short",
              [(f"sum by (reason) ({refused}) > 0 or label_replace({none}, 'reason', 'none', '', '')", "{{reason}}")],
              soft_max=1),
        lines("Errors of the carrier", "Of its clients, by kind, a minute.", "short",
              [(f"sum by (kind) (increase({m('transport_errors_total')}[1m]))", "{{kind}}")], soft_max=1,
              none="none so far"),
        lines("Records lost and foreign", "Removed by the log's retention before they were read; of other runs on the same "
              "topic. A minute.", "short", [(lately("transport_gap_records_total", "1m"), "lost"),
                                            (lately("transport_foreign_records_total", "1m"), "of other runs")], soft_max=1),
        lines("Restarts", "Processes started again, by role, in the last 15 minutes (where they keep their address).", "short",
              [(f"sum by (role) ({restarts})", "{{role}}")], soft_max=1),
        lines("Recoveries", "In the last 15 minutes: environments that failed and were made anew; a parameter server that "
              "answers again; leases given up, and their work handed to others.", "short",
              [(lately("actor_env_rebuilds_total", "15m"), "environments made anew"),
               (lately("weights_reconnects_total", "15m"), "parameter server is back"),
               (lately("leases_expired_total", "15m"), "leases given up")], soft_max=1),
        lines("Weights refused", "Answers of the parameter server that a subscriber did not take: damaged, or older than what "
              "it had. In the last 15 minutes.", "short", [(lately("weights_refused_total", "15m"), "refused")], soft_max=1),
    ]  # fmt: skip


def checkpoints() -> list[Any]:
    took = f"sum(increase({m('checkpoint_seconds_sum')}[5m])) / sum(increase({m('checkpoint_seconds_count')}[5m]))"
    return [
        lines("Age of the newest checkpoint", "A saw of run.checkpoint_every_s in good health.", "s",
              [(f"time() - max({m('checkpoint_last_timestamp_seconds')} > 0)", "age")], bad_above=600),
        lines("Writing one takes", "The learner waits for it: its phase 'checkpoint'.", "s", [(took, "mean of 5 minutes")]),
        number("Could not be written", "In the last hour. After three failures in a row the learner ends.", "short",
               [(f"sum(increase({m('checkpoint_failures_total')}[1h]))", "failures")], width=4, height=8, decimals=0,
               thresholds=((None, "green"), (1, "red"))),
        number("Lives of the learner", "Each after the first went on from a checkpoint.", "short",
               [(f"max({m('learner_epoch')})", "lives")], width=4, height=8, decimals=0),
    ]  # fmt: skip


#: Heading -> its panels, from top to bottom.
ROWS: dict[str, Callable[[], list[Any]]] = {
    "Is it learning, how fast, and what holds it up?": overview,
    "Is the pipeline in balance?": balance,
    "Staleness: how far off-policy": staleness,
    "The algorithm's own figures": algorithm,
    "Episodes": episodes,
    "Weights and leases": weights,
    "Carrier: Kafka or local": carrier,
    "Machine and GPU": machine,
    "Errors and recoveries": errors,
    "Checkpoints": checkpoints,
}
