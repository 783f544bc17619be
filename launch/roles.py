"""What the single-role commands share: their options, their config, and the announcement of their metrics."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from headrace.common.build_info import build_labels
from headrace.common.errors import NoAnswer, TransportError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.pulse import Pulse
from headrace.common.weights import tokens
from headrace.common.weights.tls import Tls
from headrace.common.weights.tokens import Token
from headrace.launch.build import with_addresses
from headrace.launch.config import Config
from headrace.launch.load import load
from headrace.launch.run_dir import claim_again
from headrace.launch.socket_dir import hold_socket_dir, release_socket_dir, remove_dead_socket_dirs, used_socket_dir
from headrace.observe import endpoints

#: Which token: the learner's, a relay's, the actors' and evaluators' (keys of the config's weights section).
PUBLISH, RELAY, SUBSCRIBE = "publish_token_file", "relay_token_file", "token_file"
Opened = TypeVar("Opened")
_AGAIN_S = 1.0


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one setting"
    )


def add_role_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="PRESET|FILE", help="the run's configuration")
    add_config_arguments(parser)
    parser.add_argument("--run-dir", type=place, metavar="D", help="the run directory (checkpoints, metrics, logs)")
    parser.add_argument("--metrics-port", type=port, default=0, metavar="PORT", help="/metrics and /healthz (0: any)")
    parser.add_argument("--metrics-host", default="127.0.0.1", metavar="HOST", help="address they listen on")
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="of what the role says")
    parser.add_argument("--stay", action="store_true", help="at the run's end, stay and wait for its next learner")
    parser.add_argument("--supervised", type=int, metavar="FD", help=argparse.SUPPRESS)


def place(text: str) -> Path:
    """A path of a command line, for argparse: an environment may change the working directory."""
    return Path(text).absolute()


def count(text: str) -> int:
    """How many of something, of a command line, for argparse."""
    if not text.replace("_", "").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of them; use 0 or more")
    return int(text)


def port(text: str) -> int:
    """A port number of a command line, for argparse."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; use 1 to 65535, or 0 to have one picked")
    return int(text)


def role_config(args: argparse.Namespace) -> Config:
    """The config of a role. A run of several machines is named in its config; there is nobody to make up an id."""
    config = load(args.config, args.overrides)
    if not config.run.id:
        raise UsageError(f"{args.config}: run.id is empty; all roles of a run need the same one (--set run.id=NAME)")
    config = with_addresses(config)
    remove_dead_socket_dirs()
    folder = used_socket_dir(config.run.id, config.transport.url, config.weights.address)
    if folder is not None:
        atexit.register(release_socket_dir, folder, hold_socket_dir(folder))
    return config


@contextlib.contextmanager
def only_writer(args: argparse.Namespace) -> Iterator[None]:
    """Hold the run directory while inside, as `headrace train` does; what that started has inherited its hold. A start
    that is refused takes a new directory away again."""
    if args.supervised is not None:
        yield
        return
    held = claim_again(args.run_dir)
    try:
        yield
    except UsageError:
        held.abandon()
        raise
    finally:
        held.close()


@contextlib.contextmanager
def announced(args: argparse.Namespace, metrics: Metrics, pulse: Pulse, index: int = 0) -> Iterator[None]:
    """Serve /metrics and /healthz while inside, and say where in the run directory (if there is one) for
    `headrace status`. What a role that died leaves there is how `status` knows of its death; a clean end takes it away,
    and so does a refusal."""
    metrics.set("build_info", 1, **build_labels(with_torch=metrics.role == "learner"))
    port = metrics.serve(args.metrics_port, args.metrics_host, pulse.beats)
    said, made = None, args.run_dir is not None and not args.run_dir.exists()
    if args.run_dir is not None:
        said = endpoints.announce(args.run_dir, metrics.role, index, f"http://{args.metrics_host}:{port}")
    try:
        yield
    except UsageError:
        if said is not None:
            endpoints.withdraw(said)
        for empty in (args.run_dir / endpoints.FOLDER, args.run_dir) if made else ():
            with contextlib.suppress(OSError):  # it is not: others announced themselves there
                empty.rmdir()
        raise
    if said is not None:
        endpoints.withdraw(said)
    metrics.close()


def patiently(opening: Callable[[], Opened], patience_s: float, stop: Callable[[], bool], pulse: Pulse) -> Opened:
    """What ``opening`` returns, waiting for one who does not answer now and has answered before.

    Raises :class:`TransportError` when that takes longer than ``patience_s``, or once ``stop()`` is true.
    """
    began_s = time.monotonic()
    while True:
        try:
            return opening()
        except NoAnswer as error:
            waited_s = time.monotonic() - began_s
            if waited_s > patience_s or stop():
                raise TransportError(f"{error} (waited {waited_s:.0f} s)") from error
            print(f"waiting for it, {waited_s:.0f} of {patience_s:.0f} s: {error}", file=sys.stderr, flush=True)
        time.sleep(_AGAIN_S)
        pulse.beat()


def token(config: Config, which: str) -> Token:
    """A bearer token (``PUBLISH``, ``RELAY`` or ``SUBSCRIBE``), that of its file at the time of each call. Raises
    :class:`UsageError` for a file that cannot be read or holds none."""
    path: Path | None = getattr(config.weights, which)
    return tokens.none if path is None else tokens.shown(path, f"weights.{which}")


def client_tls(config: Config) -> Tls | None:
    """What a client of the parameter server shows and trusts; None where it talks in clear."""
    weights = config.weights
    if weights.tls_ca is None:
        if weights.tls_client_cert or weights.tls_client_key:
            raise UsageError("weights.tls_client_cert and weights.tls_client_key need weights.tls_ca")
        return None
    return Tls(weights.tls_ca, weights.tls_client_cert, weights.tls_client_key)
