"""A forger: takes real leases with the actors' token and puts records that are right but for one thing."""

from __future__ import annotations

import copy
import time

from headrace.common.wire import trajectory_pb2 as tp

from . import frames
from .client import Client, life
from .roles import PROMISE_S, Run
from .senders import Sender, overhear, sender


class Forger:
    """Knows one honest record of the run, and makes others like it."""

    def __init__(self, run: Run):
        self.run = run
        self.template, self.payload = frames.parse(overhear(run, run.actors))
        self.client = Client(run.address, run.id, run.token)
        self.sender: Sender = sender(run.url)
        self.actor_id, self.incarnation, self.seq = 0, 0, 0
        self.be_somebody_else()

    def be_somebody_else(self) -> None:
        """Join as a new actor; what the former one holds is given back."""
        self.client.leave(self.actor_id, self.incarnation) if self.incarnation else None
        self.incarnation, self.seq = life(), 0
        ends = time.monotonic() + 30.0
        while not (numbers := self.client.join(self.incarnation)):
            assert time.monotonic() < ends, "no actor number in 30 s"
            time.sleep(0.1)
        self.actor_id = numbers[0]

    def header(self) -> tp.TrajectoryHeader:
        """A header that is right in all, under a lease that was really given."""
        lease = self.client.lease(self.actor_id, self.incarnation)
        header = copy.deepcopy(self.template)
        header.learner_epoch, header.lease = lease.learner_epoch, lease.lease
        header.actor_id, header.incarnation, header.seq = self.actor_id, self.incarnation, self.seq
        header.policy_version = lease.content.version
        del header.episode_return[:], header.episode_length[:]
        self.seq += 1
        return header

    def put(self, header: tp.TrajectoryHeader, payload: bytes | None = None) -> None:
        """Put it."""
        self.sender.put(frames.record(header, self.payload if payload is None else payload))

    def put_and_leave(self, header: tp.TrajectoryHeader, payload: bytes | None = None) -> None:
        """Put it, give the learner a moment to refuse it for what is wrong with it, and become somebody else."""
        before, ends = self.run.rejected, time.monotonic() + 1.0
        self.put(header, payload)
        while self.run.rejected == before and time.monotonic() < ends:
            time.sleep(0.02)
        self.be_somebody_else()

    def refused(self, before: int, at_least: int, what: str) -> None:
        """The learner has refused so many since ``before``, and counted them."""
        ends = time.monotonic() + PROMISE_S + self.run.slack_s
        while self.run.rejected - before < at_least:
            assert not self.run.dead(), f"{what}: {self.run.dead()}"
            if time.monotonic() > ends:
                row = self.run.row()
                raise AssertionError(f"{what}: {self.run.rejected - before} of {at_least} refused; {row}")
            time.sleep(0.05)

    def close(self) -> None:
        """Take leave."""
        self.client.leave(self.actor_id, self.incarnation)
        self.client.close()
        self.sender.close()
