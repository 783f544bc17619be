"""``headrace setup kubernetes``: the folders of ``setup files`` as the Secrets of a namespace, and Kafka's users
between.

    Secrets -> folders -> files.make -> [ca, kafka, paramserver, grafana]-secrets -> Kafka comes up -> kafka.prepare
            -> [learner, actor, evaluator]-secrets -> roles come up

The Secrets exist beforehand, empty: the Job may read and fill these names and nothing else. A pod waits for the keys of
its Secret, so who is served last starts last.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headrace.common.errors import TransportError, UsageError
from headrace.launch.config import Config
from headrace.launch.setup import files, kafka

#: What a pod knows of its cluster and of its own account.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = "https://kubernetes.default.svc"
BEFORE_KAFKA = ("ca", "kafka", "paramserver", "grafana")
AFTER_KAFKA = ("learner", "actor", "evaluator")
_TIMEOUT_S = 30.0


class Secrets:
    """The Secrets ``<role>-secrets`` of the namespace that ``account`` belongs to. Raises :class:`UsageError` outside
    of a cluster."""

    def __init__(self, api: str = API, account: Path = ACCOUNT) -> None:
        try:
            self._namespace = (account / "namespace").read_text().strip()
            self._context = ssl.create_default_context(cafile=account / "ca.crt")
        except OSError as error:
            raise UsageError(f"{account}: {error.strerror}; `setup kubernetes` runs in a pod, as a Job") from error
        self._api, self._account = api, account

    def read(self, role: str) -> dict[str, bytes]:
        """Its files. Raises :class:`UsageError` for one that is not there or not ours to read."""
        found = self._ask("GET", role, None).get("data") or {}
        return {name: base64.b64decode(text) for name, text in found.items()}

    def write(self, role: str, content: Mapping[str, bytes]) -> None:
        """Put these files into it, beside what it holds."""
        self._ask("PATCH", role, {"data": {name: base64.b64encode(text).decode() for name, text in content.items()}})

    def _ask(self, method: str, role: str, body: Any) -> dict[str, Any]:
        name = f"{role}-secrets"
        request = urllib.request.Request(
            f"{self._api}/api/v1/namespaces/{self._namespace}/secrets/{name}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                # Read anew each time: the platform renews it.
                "Authorization": f"Bearer {(self._account / 'token').read_text().strip()}",
                "Content-Type": "application/merge-patch+json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=self._context) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            what = f"{method} Secret {self._namespace}/{name}: {error.code} {error.reason}"
            raise UsageError(f"{what}; k8s/ has the empty Secrets and the right to fill them") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransportError(f"Kubernetes at {self._api}: {error}") from error


def prepare(
    config: Config, admin: str, folder: Path, names: files.Names, timeout_s: float, secrets: Secrets
) -> Iterator[str]:
    """Do it all; yields a line for each thing done. ``admin``: Kafka's listener for setup, empty where others look
    after Kafka. ``folder``: an empty one to work in. Raises :class:`UsageError` and :class:`TransportError`."""
    for role in (*BEFORE_KAFKA, *AFTER_KAFKA):
        for name, content in secrets.read(role).items():
            (folder / role).mkdir(exist_ok=True)
            (folder / role / name).write_bytes(content)
    made = files.make(folder, names)
    yield f"{', '.join(made)}: made" if made else "every secret is there already"
    yield _publish(secrets, folder, BEFORE_KAFKA)
    if admin:
        yield from kafka.prepare(config, admin, folder, timeout_s)
    yield _publish(secrets, folder, AFTER_KAFKA)


def _publish(secrets: Secrets, folder: Path, roles: tuple[str, ...]) -> str:
    for role in roles:
        secrets.write(role, {path.name: path.read_bytes() for path in (folder / role).iterdir()})
    return f"{', '.join(f'{role}-secrets' for role in roles)}: filled"
