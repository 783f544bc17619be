"""What the single-role commands share: their options, their config, and the announcement of their metrics."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.common.weights.tls import Tls
from headrace.launch.build import ensure_socket_dir, with_addresses
from headrace.launch.config import Config, load
from headrace.observe import endpoints

#: Which token: the learner's, the actors' and evaluators' (keys of the config's weights section).
PUBLISH, SUBSCRIBE = "publish_token_file", "token_file"


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one setting"
    )


def add_role_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="PRESET|FILE", help="the run's configuration")
    add_config_arguments(parser)
    parser.add_argument("--run-dir", type=Path, metavar="D", help="the run directory (checkpoints, metrics, logs)")
    parser.add_argument("--metrics-port", type=int, default=0, metavar="PORT", help="/metrics and /healthz (0: any)")
    parser.add_argument("--metrics-host", default="127.0.0.1", metavar="HOST", help="address they listen on")
    parser.add_argument("--stay", action="store_true", help="at the run's end, wait for its next learner")
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)


def role_config(args: argparse.Namespace) -> Config:
    """The config of a role. A run of several machines is named in its config; there is nobody to make up an id."""
    config = load(args.config, args.overrides)
    if not config.run.id:
        raise UsageError(f"{args.config}: run.id is empty; all roles of a run need the same one (--set run.id=NAME)")
    config = with_addresses(config)
    ensure_socket_dir(config)
    return config


@contextlib.contextmanager
def announced(args: argparse.Namespace, metrics: Metrics, role: str, index: int = 0) -> Iterator[None]:
    """Serve /metrics while inside, and say where in the run directory (if there is one) for `headrace status`. What a
    role that died leaves there is how `status` knows of its death; a clean end takes it away."""
    port = metrics.serve(args.metrics_port, args.metrics_host)
    said = None
    if args.run_dir is not None:
        said = endpoints.announce(args.run_dir, role, index, f"http://{args.metrics_host}:{port}")
    yield
    if said is not None:
        endpoints.withdraw(said)
    metrics.close()


def token(config: Config, which: str) -> str:
    """A bearer token (``PUBLISH`` or ``SUBSCRIBE``), read from its file; empty for none. Raises :class:`UsageError` for
    a file that cannot be read or holds none."""
    path: Path | None = getattr(config.weights, which)
    if path is None:
        return ""
    try:
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"weights.{which} {path}: {getattr(error, 'strerror', None) or 'no text'}") from error
    if not found or not found.isascii() or not found.isprintable():
        raise UsageError(f"weights.{which} {path}: holds no token (one line of printable ASCII)")
    return found


def client_tls(config: Config) -> Tls | None:
    """What a client of the parameter server shows and trusts; None where it talks in clear."""
    weights = config.weights
    if weights.tls_ca is None:
        if weights.tls_client_cert or weights.tls_client_key:
            raise UsageError("weights.tls_client_cert and weights.tls_client_key need weights.tls_ca")
        return None
    return Tls(weights.tls_ca, weights.tls_client_cert, weights.tls_client_key)
