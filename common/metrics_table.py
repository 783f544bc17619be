"""Every metric of every role in one table: name without the prefix, kind, help, labels and, of a histogram, buckets.

What prometheus-client itself measures of a process (process_cpu_seconds_total, process_resident_memory_bytes, ...) has
the names it has everywhere and is not in the table.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.common.errors import REJECT_REASONS

PREFIX = "headrace_"

LATENCY_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0, 16.0)
VERSIONS = (0, 1, 2, 4, 8, 16, 32, 64)
STEPS = tuple(2**i for i in range(3, 15))
BYTES = tuple(1024 * 4**i for i in range(8))


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. ``kind``: counter (name ends in _total), gauge or histogram (needs ``buckets``).

    ``values`` is the whole set of the label's values, where it is known beforehand; another value is a KeyError.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    values: tuple[str, ...] = ()


ACTOR_PHASES = ("lease", "env", "policy", "put")
LEARNER_PHASES = ("wait", "assemble", "update", "publish", "checkpoint")

TABLE: tuple[Metric, ...] = (
    # every role
    Metric("role_info", "gauge", "Always 1; the label names the role of this process", ("role",)),
    Metric("build_info", "gauge", "Always 1; the labels say what runs here", ("version", "python", "torch", "commit")),
    Metric("up_seconds", "gauge", "Seconds since this role started"),
    # actors
    Metric("actor_env_steps_total", "counter", "Environment steps taken"),
    Metric("actor_episodes_total", "counter", "Episodes finished"),
    Metric("actor_fragments_total", "counter", "Fragments handed to the carrier"),
    Metric("actor_phase_seconds_total", "counter", "Time spent, by phase", ("phase",), values=ACTOR_PHASES),
    Metric("actor_env_rebuilds_total", "counter", "Times a worker whose environment failed made all of them anew"),
    Metric("actor_reward_mean", "gauge", "Reward a step in the last fragment, by term of its shaping", ("term",)),
    Metric("actor_policy_version", "gauge", "Version of the weights the actor acts with"),
    Metric("actor_episode_steps", "histogram", "Environment steps of finished episodes", (), STEPS),
    Metric("actor_lease_wait_seconds", "histogram", "Time a worker waited for a lease that came", (), LATENCY_S),
    # carriers
    Metric(
        "transport_records_total", "counter", "Records carried, by direction", ("direction",), values=("put", "got")
    ),
    Metric("transport_bytes_total", "counter", "Encoded bytes carried", ("direction",), values=("put", "got")),
    Metric("transport_unacked_bytes", "gauge", "Bytes put and not acknowledged yet"),
    Metric("transport_queue_bytes", "gauge", "Bytes decoded or received and waiting for the learner"),
    Metric("transport_blocked_seconds_total", "counter", "Time put() waited for room"),
    Metric("transport_ack_seconds", "histogram", "From put to acknowledgement", (), LATENCY_S),
    Metric("transport_errors_total", "counter", "Errors of the carrier's client, by kind", ("kind",)),
    Metric("transport_lag_records", "gauge", "Records in the log that were not read yet", ("partition",)),
    Metric("transport_gap_records_total", "counter", "Records that retention removed before they were read"),
    Metric("transport_foreign_records_total", "counter", "Records of other runs on the same topic, skipped"),
    # learner
    Metric("learner_updates_total", "counter", "Versions made"),
    Metric("learner_samples_total", "counter", "Samples used in gradient steps"),
    Metric("learner_env_steps_total", "counter", "Environment steps trained on"),
    Metric("learner_fragments_total", "counter", "Fragments admitted"),
    Metric("learner_rejected_total", "counter", "Fragments refused, by reason", ("reason",), values=REJECT_REASONS),
    Metric("learner_phase_seconds_total", "counter", "Time spent, by phase", ("phase",), values=LEARNER_PHASES),
    Metric("learner_staleness_versions", "histogram", "Version trained minus the oldest in the fragment", (), VERSIONS),
    Metric("learner_queue_fragments", "gauge", "Fragments validated and waiting to be trained on"),
    Metric("learner_train", "gauge", "What the algorithm reports of its last update, by term", ("term",)),
    Metric("learner_episode_return", "gauge", "Mean undiscounted return of the latest finished episodes"),
    Metric("learner_policy_version", "gauge", "Latest version made"),
    Metric("learner_progress_ratio", "gauge", "Environment steps trained on, of all that the run is to have"),
    Metric("learner_epoch", "gauge", "Lives of this run's learner; each after the first went on from a checkpoint"),
    # the learner's GPU, where it has one (the extra gpu)
    Metric("gpu_utilization_ratio", "gauge", "Share of the last moments in which the GPU computed anything"),
    Metric("gpu_memory_used_bytes", "gauge", "Memory of the GPU that is taken, by whomever"),
    Metric("gpu_memory_total_bytes", "gauge", "Memory that the GPU has"),
    Metric("gpu_power_watts", "gauge", "Power that the GPU draws"),
    Metric("gpu_temperature_celsius", "gauge", "Temperature of the GPU"),
    # evaluators
    Metric("evaluator_return", "gauge", "Mean undiscounted return of the latest greedy evaluation"),
    Metric("evaluator_policy_version", "gauge", "Version evaluated last"),
    # checkpoints
    Metric("checkpoint_seconds", "histogram", "Time to write a checkpoint", (), LATENCY_S),
    Metric("checkpoint_last_timestamp_seconds", "gauge", "Unix time of the last complete checkpoint"),
    Metric("checkpoint_failures_total", "counter", "Checkpoints that could not be written"),
    # weights
    Metric("weights_publish_seconds", "histogram", "From publish to the answer, seen by the learner", (), LATENCY_S),
    Metric("weights_encodes_total", "counter", "Versions encoded into chunks"),
    Metric("weights_bytes_total", "counter", "Bytes of weights sent to subscribers"),
    Metric("weights_subscribers", "gauge", "Streams and waiting calls open"),
    Metric("weights_version", "gauge", "Current version held by the server"),
    Metric("weights_refused_total", "counter", "Answers a subscriber refused: damaged, or older than what it had"),
    Metric("weights_skipped_versions_total", "counter", "Versions subscribers never asked for"),
    Metric("weights_reconnects_total", "counter", "Times the parameter server answered again after it had not"),
    Metric("relay_questions_open", "gauge", "Questions that a relay passed on, not answered yet"),
    Metric("leases_issued_total", "counter", "Leases handed out"),
    Metric("leases_expired_total", "counter", "Leases whose actor is gone"),
    Metric("leases_admit_until", "gauge", "Fragments that may ever have been begun by now"),
    Metric("leases_out", "gauge", "Leases whose fragments did not come to the learner yet"),
    Metric("lease_oldest_worker", "gauge", "Worker whose fragment is missing for longest, -1: none"),
    Metric("lease_oldest_seconds", "gauge", "For how long that lease has been held, or not asked for in lockstep"),
    Metric("lease_oldest_silent_seconds", "gauge", "Time since that worker was last heard of"),
    # supervision
    Metric("restarts_total", "counter", "Processes started again, by role", ("role",)),
)

#: What a role shows from its start on, by the beginnings of the names.
SHOWN: dict[str, tuple[str, ...]] = {
    "actor": ("actor_", "transport_", "weights_refused_", "weights_reconnects_"),
    "learner": ("learner_", "transport_", "checkpoint_", "weights_publish_", "weights_encodes_", "weights_reconnects_"),
    "paramserver": (
        "weights_bytes_",
        "weights_subscribers",
        "weights_version",
        "weights_skipped_",
        "leases_",
        "lease_",
    ),
    "relay": ("weights_bytes_", "weights_subscribers", "weights_version", "weights_skipped_", "relay_"),
    "evaluator": ("evaluator_", "weights_refused_", "weights_reconnects_"),
}
