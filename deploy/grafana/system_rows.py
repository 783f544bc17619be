"""The lower rows: what carries weights and fragments, the machines, and what goes wrong."""

from __future__ import annotations

from typing import Any

from panels import by_role, lines, m, number, quantiles, rate, rows_of

OURS = 'job="headrace"'
PUT, GOT = 'direction="put"', 'direction="got"'
P50_95 = ((0.5, "median"), (0.95, "p95"))


def weights() -> list[Any]:
    def behind(version: str) -> str:
        """(Roles are not scraped at the same moment.)"""
        return f"clamp_min(max({m('learner_policy_version')}) - {version}, 0)"

    to_give = f"sum({m('leases_admit_until')}) - sum({m('leases_issued_total')}) + sum({m('leases_expired_total')})"
    return [
        lines("Versions behind the learner", "What the parameter server holds, and what the actors act with, against "
              "the newest version.", "suffix: versions",
              [(behind(f"max({m('weights_version')})"), "parameter server"),
               (behind(f"quantile(0.5, {m('actor_policy_version')})"), "median actor"),
               (behind(f"min({m('actor_policy_version')})"), "slowest actor")]),
        lines("Publication", "From handing a version to the publisher until the parameter server has answered; it "
              "overlaps with the next update.", "s", quantiles("weights_publish_seconds", *P50_95)),
        lines("Sent to subscribers", "Bytes of weights a second; and (right) versions made, and versions that somebody "
              "never asked for because a newer one was there.", "Bps",
              [(f"sum({rate('weights_bytes_total')})", "weights"),
               (f"sum({rate('weights_encodes_total')})", "versions a second"),
               (f"sum({rate('weights_skipped_versions_total')})", "skipped a second")],
              units={"versions a second": "short", "skipped a second": "short"}),
        lines("Wait for a lease", "How long a worker waits until it may begin its next fragment. Long waits are the "
              "pacing at work: the learner is the slower one.", "s", quantiles("actor_lease_wait_seconds", *P50_95)),
        lines("Leases", "out: their fragments did not come yet. to give: may be begun at once. Nothing to give: the "
              "bound on staleness holds the actors back.", "short",
              [(f"sum({m('leases_out')})", "out"), (f"clamp_min({to_give}, 0)", "to give")]),
        lines("Subscribers", "Streams and waiting calls open at the parameter server.", "short",
              [(f"sum({m('weights_subscribers')})", "parameter server")]),
        lines("Waited for",
              "How long the oldest lease has been out, and for how long its worker has not been heard of.", "s",
              [(f"max({m('lease_oldest_seconds')})", "out for"),
               (f"max({m('lease_oldest_silent_seconds')})", "silent for")], width=16, bad_above=60),
        number("Whose lease is that?", "Number of the worker whose fragment is missing for longest. Worker n belongs "
               "to actor n / actors.workers.", "none", [(f"max({m('lease_oldest_worker')})", "worker")], width=8,
               height=8,
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
        lines("Held in memory", "Put and not acknowledged, by all actors; received and not trained on, by the learner; "
              "and (right) the learner's queue in fragments.", "bytes",
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
        lines("Processor", "Cores' worth of time that the processes of a role take together, without what environments "
              "start in processes of their own.", "suffix: cores",
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
    none = f"sum({refused}) == 0"  # so that 15 reasons do not take the room of a legend
    restarts = by_role(f"changes({m('process_start_time_seconds', OURS)}[15m])")
    return [
        lines("Fragments refused", "By reason, a minute; what they were and why is in dead_letter/. A duplicate is no "
              "loss: a learner that goes on reads what it has trained on already.", "short",
              [(f"sum by (reason) ({refused}) > 0 or label_replace({none}, 'reason', 'none', '', '')", "{{reason}}")],
              soft_max=1),
        lines("Errors of the carrier", "Of its clients, by kind, a minute.", "short",
              [(f"sum by (kind) (increase({m('transport_errors_total')}[1m]))", "{{kind}}")], soft_max=1,
              none="none so far"),
        lines("Records lost and foreign", "Removed by the log's retention before they were read; of other runs on the "
              "same topic. A minute.", "short", [(lately("transport_gap_records_total", "1m"), "lost"),
                                            (lately("transport_foreign_records_total", "1m"), "of other runs")],
                                            soft_max=1),
        lines("Restarts", "Processes started again, by role, in the last 15 minutes (where they keep their address).",
              "short",
              [(f"sum by (role) ({restarts})", "{{role}}")], soft_max=1),
        lines("Recoveries", "In the last 15 minutes: environments that failed and were made anew; a parameter server "
              "that answers again; leases given up, and their work handed to others.", "short",
              [(lately("actor_env_rebuilds_total", "15m"), "environments made anew"),
               (lately("weights_reconnects_total", "15m"), "parameter server is back"),
               (lately("leases_expired_total", "15m"), "leases given up")], soft_max=1),
        lines("Weights refused", "Answers of the parameter server that a subscriber did not take: damaged, or older "
              "than what it had. In the last 15 minutes.", "short",
              [(lately("weights_refused_total", "15m"), "refused")], soft_max=1),
    ]  # fmt: skip


def checkpoints() -> list[Any]:
    took = f"sum(increase({m('checkpoint_seconds_sum')}[5m])) / sum(increase({m('checkpoint_seconds_count')}[5m]))"
    return [
        lines("Age of the newest checkpoint", "A saw of run.checkpoint_every_s in good health.", "s",
              [(f"time() - max({m('checkpoint_last_timestamp_seconds')} > 0)", "age")], bad_above=600),
        lines("Writing one takes", "The learner waits for it: its phase 'checkpoint'.", "s",
              [(took, "mean of 5 minutes")]),
        number("Could not be written", "In the last hour. After three failures in a row the learner ends.", "short",
               [(f"sum(increase({m('checkpoint_failures_total')}[1h]))", "failures")], width=4, height=8, decimals=0,
               thresholds=((None, "green"), (1, "red"))),
        number("Lives of the learner", "Each after the first went on from a checkpoint.", "short",
               [(f"max({m('learner_epoch')})", "lives")], width=4, height=8, decimals=0),
    ]  # fmt: skip
