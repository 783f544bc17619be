"""start, status and stop of one Kafka node that lives in a data directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from string import Template

import psutil

from headrace.common.errors import TransportError, UsageError
from headrace.launch.broker import jars, ports, process, ready
from headrace.launch.broker.ports import HOST

HERE = Path(__file__).parent
FORMAT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    """A running broker. ``started_s`` is Unix time; ``was_running`` says that ``start`` found it running."""

    data_dir: Path
    port: int
    controller_port: int
    pid: int
    started_s: float
    cluster_id: str
    was_running: bool = False

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"


def start(
    data_dir: Path,
    port: int = 9092,
    controller_port: int = 0,
    heap_mb: int = 512,
    timeout_s: float = 60.0,
    settings: Mapping[str, str] | None = None,
) -> BrokerInfo:
    """Start the broker of ``data_dir`` and return when a client has had its metadata; a running one is left as it is.

    ``port`` and ``controller_port`` 0 pick free ones. The log of an earlier start in the same directory is kept.
    ``settings`` override the properties file.
    Raises :class:`UsageError` for what a person can mend (no java, a taken port, another cluster's directory) and
    :class:`TransportError` when the broker died or did not answer within ``timeout_s`` of its start (fetching the jars,
    once per machine, is not counted).
    """
    data_dir = data_dir.absolute()
    with _claimed(data_dir):
        if (running := status(data_dir)) is not None:
            if port not in (0, running.port):
                raise UsageError(f"broker: {data_dir} is served on port {running.port} already; stop it to use {port}")
            return replace(running, was_running=True)
        java, libs = jars.java(), jars.resolve()
        port = ports.chosen(port, "--port")
        controller_port = ports.chosen(controller_port, "--controller-port")
        config = _write_config(data_dir, port, controller_port, settings or {})
        base = [str(java), "-cp", f"{libs}/*", f"-Dlog4j2.configurationFile={HERE / 'log4j2.xml'}"]
        cluster_id = _cluster_of(data_dir) or _format(base, data_dir, config)
        # Out of memory is no reason to end it: one batch that unpacks to gigabytes is refused with it, and forgotten.
        heap = [f"-Xms{min(heap_mb, 128)}m", f"-Xmx{heap_mb}m", "-XX:+UseSerialGC"]
        child = _spawn([*base[:1], *heap, *base[1:], "kafka.Kafka", str(config)], data_dir)
        info = BrokerInfo(data_dir, port, controller_port, child.pid, child.create_time(), cluster_id)
        try:
            _remember(info)
            ready.wait(info.bootstrap, time.monotonic() + timeout_s, lambda: _still(child, data_dir))
        except BaseException:
            process.end(child, timeout_s=5.0)
            raise
        return info


def status(data_dir: Path) -> BrokerInfo | None:
    """The running broker of ``data_dir``, or None."""
    data_dir = data_dir.absolute()
    try:
        saved = json.loads(_state(data_dir).read_text())
        info = BrokerInfo(**{**saved, "data_dir": data_dir})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UsageError(f"broker: {_state(data_dir)} is damaged ({error}); remove it when no broker runs") from error
    found = process.find(info.pid, info.started_s, str(_config(data_dir)))
    return info if found else None


def stop(data_dir: Path, timeout_s: float = 30.0) -> bool:
    """End the broker of ``data_dir``: SIGTERM, then SIGKILL after ``timeout_s``. False when none was running."""
    info = status(data_dir)
    found = info and process.find(info.pid, info.started_s, str(_config(info.data_dir)))
    if not found:
        return False
    process.end(found, timeout_s)
    return True


def _state(data_dir: Path) -> Path:
    return data_dir / "broker.json"


def _config(data_dir: Path) -> Path:
    return data_dir / "server.properties"


def _log(data_dir: Path) -> Path:
    return data_dir / "broker.log"


@contextlib.contextmanager
def _claimed(data_dir: Path) -> Iterator[None]:
    """Hold the directory for this start: two at the same time would format it twice."""
    try:
        if data_dir.is_dir() and any(data_dir.iterdir()) and not (data_dir / ".lock").exists():
            raise UsageError(f"broker: {data_dir} is not empty and no broker's data directory; choose another")
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / ".lock").open("w")
    except OSError as error:
        raise UsageError(f"broker: cannot use {data_dir} as data directory: {error.strerror or error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_config(data_dir: Path, port: int, controller_port: int, settings: Mapping[str, str]) -> Path:
    template = Template((HERE / "server.properties").read_text())
    values = {"port": port, "controller_port": controller_port, "log_dir": data_dir / "log"}
    more = "".join(f"{key}={value}\n" for key, value in settings.items())
    _config(data_dir).write_text(template.substitute(values) + more)  # the last line of a key counts
    return _config(data_dir)


def _cluster_of(data_dir: Path) -> str | None:
    """The id of the cluster whose log is here, None when there is none yet."""
    try:
        text = (data_dir / "log" / "meta.properties").read_text()
    except FileNotFoundError:
        return None
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    ours = data_dir / "cluster.id"
    if not ours.exists() or values.get("cluster.id") != ours.read_text().strip() or values.get("node.id") != "1":
        raise UsageError(
            f"broker: {data_dir / 'log'} belongs to another cluster (id {values.get('cluster.id')}, "
            f"node {values.get('node.id')}); choose another --data-dir"
        )
    return values["cluster.id"]


def _format(base: list[str], data_dir: Path, config: Path) -> str:
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    (data_dir / "cluster.id").write_text(cluster_id + "\n")
    # An id that began with a dash would be read as an option.
    command = [*base[:1], "-Xmx256m", *base[1:], "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}"]
    try:
        done = subprocess.run(
            [*command, "--config", str(config)], capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise TransportError(f"broker: formatting {data_dir} took more than {FORMAT_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        raise TransportError(f"broker: formatting {data_dir} failed: {_last(done.stdout + done.stderr)}")
    return cluster_id


def _spawn(command: list[str], data_dir: Path) -> psutil.Process:
    try:
        return process.spawn(command, _log(data_dir))
    except psutil.NoSuchProcess as error:
        raise TransportError(f"broker: ended at once; {_log(data_dir)}: {_tail(data_dir)}") from error


def _remember(info: BrokerInfo) -> None:
    saved = {key: value for key, value in asdict(info).items() if key not in ("data_dir", "was_running")}
    fresh = _state(info.data_dir).with_suffix(".tmp")
    fresh.write_text(json.dumps(saved, indent=1) + "\n")
    fresh.replace(_state(info.data_dir))


def _still(child: psutil.Process, data_dir: Path) -> None:
    if not process.alive(child):
        raise TransportError(f"broker: ended while starting; {_log(data_dir)}: {_tail(data_dir)}")


def _tail(data_dir: Path) -> str:
    return _last(_log(data_dir).read_text(errors="replace")[-8192:])


def _last(text: str) -> str:
    """The last line that tells a cause: exceptions are logged with their stack below them."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    return lines[-1] if lines else "it said nothing"
