"""The upper rows: is it learning, how fast, what holds it up, and how well do the algorithm and its data look?"""

from __future__ import annotations

from typing import Any

from panels import bars, lines, m, number, quantiles, rate

ACTOR = 'role="actor"'
LE, NOT_HERE = 'le=~"{}"', "this algorithm reports none"
TERM, NOT_TERM = 'term=~"{}"', 'term!~"{}"'


def overview() -> list[Any]:
    """Is it learning, how fast, and what holds it up: one look."""
    progress = f"max({m('learner_progress_ratio')})"
    speed = f"(max(deriv({m('learner_progress_ratio')}[5m])) > 0)"
    checkpoint = f"max({m('checkpoint_last_timestamp_seconds')} > 0)"
    return [
        number("Bottleneck", "What is busy for the largest share of the time sets the pace: the verdict of `headrace "
               "status` over the last minute. 'balanced': actors and learner are both busy.", "percentunit",
               [(m("headrace:bottleneck:share1m"), "{{verdict}}")], width=6, named=True, colour="blue",
               none="no learner"),
        number("Return", "Mean undiscounted return of the last 100 finished episodes (they explore).", "short",
               [(f"max({m('learner_episode_return')})", "return")], decimals=1, colour="orange"),
        number("Greedy return", "Mean return of the evaluator's last greedy evaluation, on unseen seeds.", "short",
               [(f"max({m('evaluator_return')})", "greedy")], decimals=1, colour="yellow", none="no evaluator"),
        number("Progress", "Environment steps trained on, of all the run is to have.", "percentunit",
               [(progress, "progress")], decimals=1),
        number("Time left", "At the speed of the last five minutes.", "s",
               [(f"(1 - {progress}) / {speed}", "time left")],
               decimals=0, none="standing still"),
        number("Actors", "Actor processes that answer.", "short", [(f"count({m('role_info', ACTOR)})", "processes")],
               none="none", thresholds=((None, "red"), (1, "blue"))),
        number("Checkpoint age", "Time since the newest complete one: what a learner that dies would learn again.", "s",
               [(f"time() - {checkpoint}", "age")], decimals=0,
               thresholds=((None, "green"), (120, "yellow"), (600, "red"))),
        lines("Return", "Training: mean undiscounted return of the last 100 finished episodes. Greedy: the evaluator's "
              "last evaluation, on unseen seeds and without exploration.", "short",
              [(f"max({m('learner_episode_return')})", "training"), (f"max({m('evaluator_return')})", "greedy")],
              limits=(None, None)),
        lines("Speed", "Environment steps a second: collected by all actors, and trained on by the learner. Curves "
              "that part for long: leases are given up, or fragments refused.", "short",
              [(f"sum({rate('actor_env_steps_total')})", "actors"),
               (f"sum({rate('learner_env_steps_total')})", "learner")]),
        bars("How busy is each part of the loop?", "The share of its time that each part works. The largest sets the "
             "pace. actors: environment and policy. learner: update, assemble, checkpoint. weights: publication, and "
             "what no part explains while both ends wait. carrier: put and acknowledgement, as far as the learner "
             "waits.",
             "percentunit",
             [(m("headrace:loop_part:share1m"), "{{part}}")]),
    ]  # fmt: skip


def balance() -> list[Any]:
    return [
        lines("How busy was each part?", "The bars above over time. Where two curves cross, the bottleneck changes.",
              "percentunit", [(m("headrace:loop_part:share1m"), "{{part}}")], limits=(0, 1)),
        lines("Where the learner's time goes", "Mostly wait: more actors help. Mostly update: they do not.",
              "percentunit", [(m("headrace:learner_phase:share1m"), "{{phase}}")], stacked=True, limits=(0, 1)),
        lines("Where the actors' time goes", "The mean over all actors. Mostly lease: they are ahead of the learner "
              "and wait for it, as they should. Mostly put: the carrier holds them up.", "percentunit",
              [(m("headrace:actor_phase:share1m"), "{{phase}}")], stacked=True, limits=(0, 1)),
        lines("Fragments", "Handed to the carrier by actors, and admitted by the learner, a second.", "short",
              [(f"sum({rate('actor_fragments_total')})", "actors"),
               (f"sum({rate('learner_fragments_total')})", "learner")]),
        lines("Updates and reuse", "Versions made a second; and (right) how many samples of gradient steps come from "
              "one step of an environment: 1 for PPO, whose epochs go over the same batch, samples_per_insert with "
              "replay.", "short",
              [(f"sum({rate('learner_updates_total')})", "versions a second"),
               (f"sum({rate('learner_samples_total')}) / sum({rate('learner_env_steps_total')})", "samples per step")],
              units={"samples per step": "short"}),
        lines("Speed of an actor", "Environment steps a second of the slowest, the middle and the fastest actor. A "
              "slow one among fast ones: a busy machine, or long episodes.", "short",
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
        lines("How old is what is trained on?", "Shares of the fragments by the versions that were made since the "
              "oldest of their steps. Never more than learner.max_staleness.", "percentunit",
              [(expression, age) for age, expression in ages], stacked=True, limits=(0, 1)),
        lines("Staleness, and thrown away as too old", "Mean versions; and (right) the share of fragments beyond the "
              "bound, whose lease was given up before they came. That is zero in good health: actors are paced, data "
              "is not thrown away.",
              "suffix: versions",
              [(mean, "mean"), (f"sum({stale}) / (sum({stale}) + sum({admitted}))", "refused as stale")],
              units={"refused as stale": "percentunit"}, soft_max=1),
        lines("How far off-policy?", "Approximate KL from the policy that acted to the one that learns; and (right) "
              "the share of samples whose ratio was clipped.", "short",
              [(m("learner_train", 'term=~"kl|reference_kl|clip_fraction"'), "{{term}}")],
              units={"clip_fraction": "percentunit"}, none=NOT_HERE),
    ]  # fmt: skip


def algorithm() -> list[Any]:
    shown = "kl|reference_kl|clip_fraction|entropy|explained_variance|td_error|q|.*loss|grad_norm|learning_rate"

    def terms(which: str, negated: bool = False) -> list[tuple[str, str]]:
        return [(m("learner_train", (NOT_TERM if negated else TERM).format(which)), "{{term}}")]

    return [
        lines("Entropy", "Of the policy. To nothing early on: it stopped exploring.", "short", terms("entropy"),
              none=NOT_HERE),
        lines("Value function", "Explained variance of the critic (1: perfect, 0: no better than a constant); or the "
              "mean Q of DQN and SAC (right), and DQN's TD error.", "short",
              terms("explained_variance|td_error|q"), limits=(None, None),
              units={"q": "short"}, none=NOT_HERE),
        lines("Losses", "Of the last gradient step.", "short", terms(".*loss"), limits=(None, None), none=NOT_HERE),
        lines("Norm of the gradient", "Before it is clipped. Rising without end: lower the learning rate.", "short",
              terms("grad_norm")),
        lines("Learning rate", "By its schedule.", "sci", terms("learning_rate"), decimals=2),
        lines("Everything else it reports", "Of the last update, what no other panel shows.", "short",
              terms(shown, negated=True), none="nothing else"),
    ]  # fmt: skip


def episodes() -> list[Any]:
    newest = f"max({m('learner_policy_version')})"
    return [
        lines("Episode length", "Environment steps of finished episodes (within the buckets of a histogram).",
              "suffix: steps",
              quantiles("actor_episode_steps", (0.1, "p10"), (0.5, "median"), (0.9, "p90"))),
        lines("Episodes", "Finished a second by all actors together; and (right) their mean length.", "short",
              [(f"sum({rate('actor_episodes_total')})", "episodes a second"),
               (f"sum({rate('actor_episode_steps_sum')}) / sum({rate('actor_episode_steps_count')})", "mean length")],
              units={"mean length": "suffix: steps"}),
        lines("The evaluator is behind", "Versions made since the one that was evaluated last.", "suffix: versions",
              [(f"clamp_min({newest} - max({m('evaluator_policy_version')}), 0)", "evaluator")],
              none="no evaluator"),
    ]  # fmt: skip
