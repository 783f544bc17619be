"""The parameter server role: hands out weights and leases until the run has come to its end, or it is told to stop.

Imports no torch and no environment.
"""

from __future__ import annotations

import argparse
import time

from headrace.common.metrics import Metrics
from headrace.common.pulse import Pulse
from headrace.launch.config import Config
from headrace.launch.roles import add_role_arguments, announced, role_config
from headrace.launch.stopping import Stop
from headrace.paramserver.options import Options
from headrace.paramserver.server import ParamServer

_POLL_S, _GRACE_S = 0.2, 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_role_arguments(parser)


def run(args: argparse.Namespace) -> int:
    config = role_config(args)
    stop, metrics = Stop(args.supervised), Metrics("paramserver")
    pulse = Pulse(config.run.turn_timeout_s)
    server = ParamServer(config.weights.address, options(config), metrics, pulse.beat)
    with announced(args, metrics, pulse):
        server.start()
        print(f"parameter server of run {config.run.id} listens on {server.address}", flush=True)
        try:
            while not stop() and (args.stay or args.supervised or not server.all_went_home):
                time.sleep(_POLL_S)
        finally:
            server.stop(_GRACE_S)
    return 0


def options(config: Config) -> Options:
    """Lockstep where nothing may be stale: leases then go to the workers in turn."""
    weights = config.weights
    return Options(
        run_id=config.run.id,
        workers=config.workers if config.learner.max_staleness == 0 else 0,
        lost_after_s=weights.lease_ttl_s,
        delivery_s=weights.delivery_s,
        lease_max_s=weights.lease_max_s,
        leases_per_peer=weights.leases_per_peer or max(1, config.leases_at_once // 2),
        publish_token_file=weights.publish_token_file,
        token_file=weights.token_file,
        insecure=weights.insecure,
        tls_cert=weights.tls_cert,
        tls_key=weights.tls_key,
        tls_client_ca=weights.tls_client_ca,
    )
