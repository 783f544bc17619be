"""Kafka's jars, resolved by Maven once and kept in a cache folder, and the java that can run them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from headrace.common.errors import UsageError

POM = Path(__file__).with_name("pom.xml")
JAVA_AT_LEAST = 17
RESOLVE_TIMEOUT_S = 600.0


def cache_dir() -> Path:
    """``$HEADRACE_CACHE``, else ``$XDG_CACHE_HOME/headrace``, else ``~/.cache/headrace``."""
    if own := os.environ.get("HEADRACE_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headrace"


def java() -> Path:
    """The java to use: ``$JAVA_HOME/bin/java``, else the one on the path. Raises :class:`UsageError` when there is none
    or it is older than Java 17."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    wanted = f"install Java {JAVA_AT_LEAST} or newer (Debian: openjdk-17-jre-headless) or set JAVA_HOME"
    if found is None or not Path(found).is_file():
        raise UsageError(f"broker: no java {'on the path' if found is None else f'at {found}'}; {wanted}")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=60).stderr
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    if match is None or int(match[1]) < JAVA_AT_LEAST:
        raise UsageError(f"broker: {found} is {said.splitlines()[0] if said else 'not a java'}; {wanted}")
    return Path(found)


def resolve() -> Path:
    """The folder with Kafka's jars; fetches them on the first call (54 MB). Raises :class:`UsageError` when Maven is
    missing or fails."""
    folder = cache_dir() / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise UsageError("broker: no mvn on the path to fetch Kafka's jars; install Maven 3.6.3+ (Debian: maven)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kafka-", dir=folder.parent) as fresh:
        target = Path(fresh) / "jars"
        _fetch(maven, target)
        try:
            target.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody else was faster with the same jars
                raise
    return folder


def _fetch(maven: str, target: Path) -> None:
    command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={target}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RESOLVE_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"broker: Maven did not fetch Kafka's jars within {RESOLVE_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        errors = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
        reason = errors[0] if errors else f"exit code {done.returncode}"
        raise UsageError(f"broker: Maven could not fetch Kafka's jars (is its repository reachable?): {reason}")
