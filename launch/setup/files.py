"""``headrace setup files``: one folder a role, with what that role may know and nothing else.

    ca/            ca.crt, ca.key: setup's own; the key signs, and nobody else needs it
    kafka/         keystore.pem (certificate and key)
    paramserver/   ca.crt, server.crt, server.key, publish.token, subscribe.token
    learner/       ca.crt, client.crt, client.key, publish.token, kafka.password
    actor/         ca.crt, client.crt, client.key, subscribe.token, kafka.password
    evaluator/     ca.crt, client.crt, client.key, subscribe.token
    grafana/       admin.password

Made once; run again, it makes what is missing and renews what ends soon, and roles take a renewed certificate or token
up while they run.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from headrace.common import durable
from headrace.common.errors import UsageError
from headrace.launch.setup.authority import Authority

#: The roles that a certificate names (SECURITY.md), by folder.
_CLIENTS = {"learner": "headrace:learner", "actor": "headrace:actor", "evaluator": "headrace:actor"}
#: What is random: file -> the folders that hold it.
_SHARED = {
    "publish.token": ("paramserver", "learner"),
    "subscribe.token": ("paramserver", "actor", "evaluator"),
}
_OWN = {"learner": "kafka.password", "actor": "kafka.password", "grafana": "admin.password"}
_RANDOM_BYTES = 32
#: The group reads: a folder hands its group on to what is made in it, so that no file is unreadable for a moment.
_FOLDER_MODE, _FILE_MODE = 0o2750, 0o440
_ALONE_FOLDER_MODE, _ALONE_FILE_MODE = 0o700, 0o400


@dataclass(frozen=True)
class Names:
    """The hosts under which the servers are known to others."""

    paramserver: tuple[str, ...]
    kafka: tuple[str, ...]


def make(folder: Path, names: Names, group: int | None = None) -> list[str]:
    """Make what is missing or ends soon; returns the names of it. Raises :class:`UsageError` for a folder that cannot
    be written and for an authority that is damaged."""
    store = _Store(folder, group)
    try:
        authority = _authority(store)
        _certificates(store, authority, names)
        for name, folders in _SHARED.items():
            held = {store.read(f"{at}/{name}") for at in folders}
            value = (held.pop() if len(held) == 1 else b"") or _random()  # one that is missing anywhere is made anew
            for at in folders:
                store.write(f"{at}/{name}", value)
        for at, name in _OWN.items():
            store.write(f"{at}/{name}", store.read(f"{at}/{name}") or _random())
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: {error.strerror}; setup needs to write there") from error
    return store.made


def hand_over(directory: Path, owner: int | None) -> None:
    """Make a directory, and give it with all that is in it to ``owner``. Raises :class:`UsageError`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if owner is not None:
            for path in (directory, *directory.rglob("*")):
                if path.lstat().st_uid != owner:
                    os.chown(path, owner, -1, follow_symlinks=False)
    except OSError as error:
        raise UsageError(
            f"{error.filename or directory}: {error.strerror}; run it as root, or leave --own out"
        ) from error


class _Store:
    """Files below ``folder``, written whole, and the names of those that were."""

    def __init__(self, folder: Path, group: int | None) -> None:
        self._folder, self._group = folder, group
        self.made: list[str] = []

    def read(self, name: str) -> bytes:
        """Empty for what is not there."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return b""

    def write(self, name: str, content: bytes) -> None:
        """Raises OSError. Nothing happens where it is there just so."""
        path = self._folder / name
        self._open_to_group(path.parent)
        if self.read(name) != content:
            durable.replace_file(path, content, mode=_ALONE_FILE_MODE if self._group is None else _FILE_MODE)
            self.made.append(name)

    def _open_to_group(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self._group is None:
            folder.chmod(_ALONE_FOLDER_MODE)
        else:
            os.chown(folder, -1, self._group)
            folder.chmod(_FOLDER_MODE)


def _authority(store: _Store) -> Authority:
    certificate, key = store.read("ca/ca.crt"), store.read("ca/ca.key")
    if not certificate and not key:
        made = Authority.new("headrace")
        store.write("ca/ca.key", made.key)
        store.write("ca/ca.crt", made.certificate)
        return made
    try:
        held = Authority(certificate, key)
    except ValueError as error:
        raise UsageError(
            f"ca/ca.crt and ca/ca.key: {error}; restore them, or remove all folders to begin anew"
        ) from error
    if not held.lasts():
        raise UsageError("ca/ca.crt ends soon, and every certificate with it; remove all folders to begin anew")
    return held


def _certificates(store: _Store, authority: Authority, names: Names) -> None:
    for role in ("paramserver", *_CLIENTS):
        store.write(f"{role}/ca.crt", authority.certificate)
    server = (*names.paramserver, "localhost")
    if not authority.still_good(store.read("paramserver/server.crt"), hosts=server):
        _pair(store, "paramserver/server", *authority.certify("paramserver", hosts=server))
    broker = (*names.kafka, "localhost")
    if not authority.still_good(store.read("kafka/keystore.pem"), hosts=broker):
        certificate, key = authority.certify("kafka", hosts=broker)
        store.write("kafka/keystore.pem", key + certificate)
    for role, uri in _CLIENTS.items():
        if not authority.still_good(store.read(f"{role}/client.crt"), uri=uri):
            _pair(store, f"{role}/client", *authority.certify(role, uri=uri))


def _pair(store: _Store, name: str, certificate: bytes, key: bytes) -> None:
    store.write(f"{name}.key", key)
    store.write(f"{name}.crt", certificate)


def _random() -> bytes:
    """One line of text that nobody guesses."""
    return secrets.token_urlsafe(_RANDOM_BYTES).encode() + b"\n"
