"""Python imports this file in every role of a run whose PYTHONPATH names this folder: the process then writes down what
it does, in $HEADRACE_RECORD/<pid>.jsonl. Each line is one write(2): SIGKILL takes none that was written.

    ["sent", FRAGMENT] ["acked", FRAGMENT]           an actor's producer was given it; the broker has acknowledged it
    ["weights", EPOCH, VERSION]                      an actor has received that version
    ["taken", PARTITION, OFFSET, FRAGMENT]           the learner has read it from the log
    ["began", EPOCH, VERSION]                        a life of the learner begins
    ["version", EPOCH, VERSION, STALENESS, [FRAGMENT, ...]]     it has made a version, of these
    FRAGMENT: [actor, incarnation, seq, lease, policy version, learner epoch]

What is wrapped are the public calls of the modules in WATCHED; nothing of the product knows.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from importlib.machinery import PathFinder


def write(*event):
    global _file
    if _file < 0:
        _file = os.open(f"{_folder}/{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(_file, json.dumps(event).encode() + b"\n")


def stamps(trajectory):
    t = trajectory
    return [t.actor_id, t.incarnation, t.seq, t.lease, t.policy_version, t.learner_epoch]


def wrapped(owner, name):
    """The decorated function, given the real one first, takes the place of ``owner.name``."""

    def put(around):
        setattr(owner, name, functools.partialmethod(around, getattr(owner, name)))

    return put


def producers(module):
    from headrace.common.codec import decode

    @wrapped(module.Producer, "send")
    def send(self, real, topic, key, value, headers, done):
        if topic.endswith(".dead"):
            return real(self, topic, key, value, headers, done)
        fragment = stamps(decode(value, 8 << 20))

        def heard(error):
            if error is None:
                write("acked", fragment)
            done(error)

        write("sent", fragment)
        return real(self, topic, key, value, headers, heard)


def sources(module):
    @wrapped(module.KafkaSource, "get")
    def get(self, real, timeout_s):
        received = real(self, timeout_s)
        if received is not None:
            write("taken", received.partition, received.next_offset - 1, stamps(received.trajectory))
        return received


def learners(module):
    @wrapped(module.Report, "__init__")
    def begin(self, real, metrics, counters, total_steps, learner_epoch):
        self.recorded = (learner_epoch, counters)
        write("began", learner_epoch, counters.version)
        real(self, metrics, counters, total_steps, learner_epoch)

    @wrapped(module.Report, "add")
    def add(self, real, trained):
        epoch, counters = self.recorded
        fragments = [stamps(t) for t in trained.fragments]
        write("version", epoch, counters.version, max(trained.staleness), fragments)
        real(self, trained)


def subscribers(module):
    @wrapped(module.GrpcSubscriber, "next")
    def next_lease(self, real, *args, **kwargs):
        lease = real(self, *args, **kwargs)
        if lease is not None and lease.weights is not None:
            write("weights", lease.weights.learner_epoch, lease.weights.version)
        return lease


WATCHED = {
    "headrace.common.transport.kafka_python": producers,
    "headrace.common.transport.kafka_confluent": producers,
    "headrace.common.transport.kafka_source": sources,
    "headrace.learner.report": learners,
    "headrace.common.weights.subscriber": subscribers,
}


class Watch:
    """Hands a watched module to its function as soon as it is executed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in WATCHED or (spec := PathFinder.find_spec(name, path)) is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            WATCHED[name](module)

        spec.loader.exec_module = exec_module
        return spec


_folder, _file = os.environ.get("HEADRACE_RECORD", ""), -1
if _folder:
    sys.meta_path.insert(0, Watch)
