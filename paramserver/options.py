"""How a parameter server listens, whom it trusts, and its limits."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from headrace.common.errors import UsageError
from headrace.common.pem import check_authority, check_pair
from headrace.common.reloaded import Reloaded
from headrace.common.weights.address import split
from headrace.paramserver.auth import PUBLISH, RELAY, SUBSCRIBE, Tokens
from headrace.paramserver.ledger import Ledger
from headrace.paramserver.lockstep import make_ledger


@dataclass(frozen=True)
class Options:
    """``run_id``: the only run served (empty: that of the first publication). ``workers``: > 0 is lockstep.

    ``lost_after_s``, ``delivery_s``, ``settle_s``, ``lease_max_s``, ``leases_per_peer``: see paramserver/ledger.py.

    Tokens of ``publish_token_file`` let publish and subscribe, those of ``relay_token_file`` relay and subscribe, those
    of ``token_file`` subscribe only; all None: nobody is asked. ``insecure``: listen beyond this machine without tokens
    all the same. ``relays``: this is a relay, nobody publishes here. ``tls_cert``, ``tls_key``:
    PEM; ``tls_client_ca`` asks every client for a certificate that it signed and that names a role (auth.py).
    """

    run_id: str = ""
    workers: int = 0
    lost_after_s: float = 3.5
    delivery_s: float = 5.0
    settle_s: float = 5.0
    lease_max_s: float = 0.0
    leases_per_peer: int = 0
    relays: bool = False
    publish_token_file: Path | None = None
    relay_token_file: Path | None = None
    token_file: Path | None = None
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
        self.check_tls()
        tokens = self.tokens()
        guarded = tokens is not None or self.tls_client_ca is not None
        if not (guarded or self.insecure or is_local(address)):
            raise UsageError(
                f"parameter server: {address} can be reached from other machines and asks for no token; "
                "give a token, listen on 127.0.0.1, or set insecure if the network is trusted"
            )

    def check_tls(self) -> None:
        """Raises :class:`UsageError` for files that are not what they should be."""
        if self.tls_cert is not None and self.tls_key is not None:
            names = ("weights.tls_cert", "weights.tls_key")
            check_pair(self.tls_cert, self.tls_key, *names, ssl.Purpose.SERVER_AUTH)
        if self.tls_client_ca is not None:
            check_authority(self.tls_client_ca, "weights.tls_client_ca")

    def tokens(self) -> Reloaded[Tokens] | None:
        """Those of the files, read anew when they change; None where nobody is asked for one. Raises
        :class:`UsageError` for one file without the other, and for what :meth:`Tokens.read` refuses."""
        given = {PUBLISH: self.publish_token_file, RELAY: self.relay_token_file, SUBSCRIBE: self.token_file}
        files = {kind: path for kind, path in given.items() if path is not None}
        needed = {SUBSCRIBE} if self.relays else {PUBLISH, SUBSCRIBE}
        if not files or (self.relays and files.keys() == {RELAY}):
            return None
        if not needed <= files.keys():
            raise UsageError(
                "parameter server: weights.publish_token_file (the learner's) and weights.token_file (the actors') "
                "belong together; give both or neither"
            )
        return Reloaded(tuple(files.values()), lambda: Tokens.read(files))


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
