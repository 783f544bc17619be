"""How a parameter server listens, whom it trusts, and its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from headrace.common.errors import UsageError
from headrace.common.weights.address import split
from headrace.common.weights.tls import check_authority, check_pair
from headrace.paramserver.ledger import Ledger
from headrace.paramserver.lockstep import make_ledger


@dataclass(frozen=True)
class Options:
    """``run_id``: the only run served (empty: that of the first publication). ``workers``: > 0 is lockstep.

    ``lost_after_s``, ``delivery_s``, ``settle_s``, ``lease_max_s``, ``leases_per_peer``: see paramserver/ledger.py.

    ``publish_token`` lets publish and subscribe, ``subscribe_token`` subscribe only; both empty: nobody is asked.
    ``insecure``: listen beyond this machine without tokens all the same. ``tls_cert``, ``tls_key``: PEM files;
    ``tls_client_ca`` asks every client for a certificate that it signed and that names a role (auth.py).
    """

    run_id: str = ""
    workers: int = 0
    lost_after_s: float = 3.5
    delivery_s: float = 5.0
    settle_s: float = 5.0
    lease_max_s: float = 0.0
    leases_per_peer: int = 0
    publish_token: str = ""
    subscribe_token: str = ""
    insecure: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    max_weights_bytes: int = 2 << 30
    max_subscribers: int = 4096
    max_subscribers_per_host: int = 1024
    max_poll_s: float = 30.0
    transfer_timeout_s: float = 120.0
    farewell_s: float = 5.0

    def ledger(self) -> Ledger:
        times_s = {"lost_after_s": self.lost_after_s, "delivery_s": self.delivery_s, "settle_s": self.settle_s}
        return make_ledger(self.workers, lease_max_s=self.lease_max_s, per_peer=self.leases_per_peer, **times_s)

    def check(self, address: str) -> None:
        """Raises :class:`UsageError` for an address that is none, TLS files that are no pair, tokens that are not two,
        and for an open door to the network."""
        split(address)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("parameter server: tls_cert and tls_key belong together; give both or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise UsageError("parameter server: tls_client_ca needs tls_cert and tls_key")
        if bool(self.publish_token) != bool(self.subscribe_token):
            raise UsageError(
                "parameter server: weights.publish_token_file (the learner's) and weights.token_file (the actors') "
                "belong together; give both or neither"
            )
        if self.publish_token and self.publish_token == self.subscribe_token:
            raise UsageError(
                "parameter server: weights.publish_token_file and weights.token_file hold the same token; "
                "with it every actor could publish"
            )
        if self.tls_cert is not None and self.tls_key is not None:
            check_pair(self.tls_cert, self.tls_key, "weights.tls_cert", "weights.tls_key")
        if self.tls_client_ca is not None:
            check_authority(self.tls_client_ca, "weights.tls_client_ca")
        guarded = bool(self.publish_token) or self.tls_client_ca is not None
        if not (guarded or self.insecure or is_local(address)):
            raise UsageError(
                f"parameter server: {address} can be reached from other machines and asks for no token; "
                "give a token, listen on 127.0.0.1, or set insecure if the network is trusted"
            )


def is_local(address: str) -> bool:
    """Whether only processes of this machine can reach ``address`` (host:port, or unix:path)."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = split(address)[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
