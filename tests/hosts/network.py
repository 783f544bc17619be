"""Hosts on one machine: network namespaces with addresses of their own, all on one switch (a bridge, in a namespace of
its own). Nothing leads from there to this machine's network, and nothing of this machine's is changed.

    with Network("broker", "learner") as network:
        subprocess.Popen(network.inside("learner", ["ping", network.address("broker")]))
        network.cut("broker"); network.mend("broker")             a line goes dead: no RST, no lost carrier, nothing
        network.slow("broker", "1mbit")                           both ways (tc tbf)
        network.power_off("broker"); network.power_on("broker")   the same address and card, another life
        network.heal()                                            all lines as they were, every host there

Needs root. Names are unique to a network, so that several may be there at once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time

_SWITCH = "switch"
#: What one host and its switch may have queued for each other: as long as this.
_QUEUE = ("burst", "32kb", "latency", "400ms")


class Missing(Exception):
    """There can be no hosts here: says why."""


class Network:
    """Hosts by name (15 letters at most). Raises :class:`Missing` where the kernel or the rights do not allow any."""

    def __init__(self, *hosts: str) -> None:
        self._id, self._hosts = f"hr{secrets.token_hex(3)}", hosts
        self._off, self._slow = set(hosts), set[str]()

    def __enter__(self) -> Network:
        _check()
        try:
            self._ip("netns", "add", self._name(_SWITCH))
            self._ip("-n", self._name(_SWITCH), "link", "add", "bridge", "type", "bridge")
            self._ip("-n", self._name(_SWITCH), "link", "set", "bridge", "up")
            for host in self._hosts:
                self.power_on(host)
        except subprocess.CalledProcessError as error:
            self.close()
            raise Missing(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process of every host, and take everything away."""
        for host in (*self._hosts, _SWITCH):
            self._kill(host)
            with contextlib.suppress(subprocess.CalledProcessError):
                self._ip("netns", "del", self._name(host))

    def address(self, host: str) -> str:
        return f"10.99.0.{self._number(host)}"

    def inside(self, host: str, argv: list[str]) -> list[str]:
        """The command that runs ``argv`` on a host; its pid is that of ``argv``."""
        return ["ip", "netns", "exec", self._name(host), *argv]

    def pids(self, host: str) -> list[int]:
        """Of every process that runs there."""
        return [int(word) for word in self._ip("netns", "pids", self._name(host)).split()]

    # --- lines -----------------------------------------------------------------------------------------------------

    def cut(self, host: str) -> None:
        """From now on nothing that is sent from or to the host arrives. Neither end is told."""
        self._ip("-n", self._name(_SWITCH), "link", "set", "dev", host, "nomaster")

    def mend(self, host: str) -> None:
        self._ip("-n", self._name(_SWITCH), "link", "set", "dev", host, "master", "bridge")

    def slow(self, host: str, rate: str) -> None:
        """``rate`` for what the host sends, and as much for what it is sent: "1mbit"."""
        self._slow.add(host)
        for where, line in ((host, "eth0"), (_SWITCH, host)):
            command = ["tc", "-n", self._name(where), "qdisc", "replace", "dev", line, "root", "tbf", "rate", rate]
            _run([*command, *_QUEUE])

    def heal(self) -> None:
        for host in sorted(self._off):
            self.power_on(host)
        for host in self._hosts:
            self.mend(host)
        for host in sorted(self._slow):
            for where, line in ((host, "eth0"), (_SWITCH, host)):
                with contextlib.suppress(subprocess.CalledProcessError):  # another life, another line
                    _run(["tc", "-n", self._name(where), "qdisc", "del", "dev", line, "root"])
        self._slow.clear()

    # --- power -----------------------------------------------------------------------------------------------------

    def power_off(self, host: str) -> None:
        """The host is gone with all that ran on it, connections included, and nobody hears of it."""
        self._ip("-n", self._name(_SWITCH), "link", "del", "dev", host)
        self._off.add(host)
        self._kill(host)
        self._ip("netns", "del", self._name(host))

    def power_on(self, host: str) -> None:
        """A host of that name, with nothing running: the same card (MAC) and address in every life."""
        name, switch, number = self._name(host), self._name(_SWITCH), self._number(host)
        self._ip("netns", "add", name)
        card = ["eth0", "address", f"02:00:00:00:00:{number:02x}", "netns", name]
        self._ip("link", "add", "name", *card, "type", "veth", "peer", "name", host, "netns", switch)
        self._ip("-n", name, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        for line in ("lo", "eth0"):
            self._ip("-n", name, "link", "set", "dev", line, "up")
        self._ip("-n", switch, "link", "set", "dev", host, "up")
        self.mend(host)
        self._off.discard(host)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _name(self, host: str) -> str:
        return f"{self._id}-{host}"

    def _number(self, host: str) -> int:
        return 1 + self._hosts.index(host)

    def _ip(self, *words: str) -> str:
        return _run(["ip", *words])

    def _kill(self, host: str) -> None:
        """Returns once nothing runs there."""
        end_s = time.monotonic() + 30
        with contextlib.suppress(subprocess.CalledProcessError):  # there is no such host (any more)
            while pids := self.pids(host):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                assert time.monotonic() < end_s, f"{host}: {pids} do not end"
                time.sleep(0.05)


def _check() -> None:
    if os.geteuid() != 0:
        raise Missing("only root may make network namespaces")
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            raise Missing(f"there is no `{program}` (Debian and Ubuntu: apt-get install iproute2)")


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
