"""The parameter server role: hands out weights and leases until the run has come to its end, or it is told to stop.
With --upstream it is a relay: it has both from another one.

Imports no torch and no environment.
"""

from __future__ import annotations

import argparse
import time

from headrace.common.metrics import Metrics
from headrace.common.pulse import Pulse
from headrace.common.weights.address import addresses
from headrace.launch.config import Config
from headrace.launch.roles import RELAY, add_role_arguments, announced, client_tls, role_config, token
from headrace.launch.stopping import Stop
from headrace.paramserver.options import Options
from headrace.paramserver.server import ParamServer
from headrace.paramserver.upstream import Parents

_POLL_S, _GRACE_S = 0.2, 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_role_arguments(parser)
    parser.add_argument(
        "--upstream",
        metavar="ADDRESSES",
        help="be a relay of the parameter server there (or HOST:PORT,HOST:PORT)",
    )
    parser.add_argument("--index", type=int, default=0, help="which relay of this run directory it is")


def run(args: argparse.Namespace) -> int:
    config = role_config(args)
    stop, metrics = Stop(args.supervised), Metrics("paramserver" if args.upstream is None else "relay")
    pulse = Pulse(config.run.turn_timeout_s)
    parents = None
    if args.upstream is not None:
        parents = Parents(addresses(args.upstream), config.run.id, token(config, RELAY), client_tls(config))
    server = ParamServer(config.weights.address, options(config, parents is not None), metrics, pulse.beat, parents)
    with announced(args, metrics, pulse, args.index):
        server.start()
        what = "parameter server" if parents is None else f"relay of {args.upstream}, a parameter server"
        print(f"{what} of run {config.run.id} listens on {server.address}", flush=True)
        try:
            while not stop() and (args.stay or args.supervised or not server.all_went_home):
                server.raise_if_failed()
                time.sleep(_POLL_S)
        finally:
            server.stop(_GRACE_S)
    return 0


def options(config: Config, relays: bool = False) -> Options:
    """Lockstep where nothing may be stale: leases then go to the workers in turn."""
    weights = config.weights
    return Options(
        run_id=config.run.id,
        workers=config.workers if config.learner.max_staleness == 0 else 0,
        lost_after_s=weights.lease_ttl_s,
        delivery_s=weights.delivery_s,
        lease_max_s=weights.lease_max_s,
        leases_per_peer=weights.leases_per_peer or max(1, config.leases_at_once // 2),
        relays=relays,
        publish_token_file=None if relays else weights.publish_token_file,
        relay_token_file=weights.relay_token_file,
        token_file=weights.token_file,
        insecure=weights.insecure,
        tls_cert=weights.tls_cert,
        tls_key=weights.tls_key,
        tls_client_ca=weights.tls_client_ca,
    )
