"""Certificates for tests, made by the openssl command as SECURITY.md says: an authority, and whom it vouches for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Certificate and private key (PEM, PKCS #8) for localhost and 127.0.0.1, made in ``folder``."""
    openssl = shutil.which("openssl")
    assert openssl, "the tests need the openssl command to make a certificate"
    folder.mkdir(parents=True, exist_ok=True)
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return cert, key


class Authority:
    """Signs certificates. ``ca``: the file that those who trust it are given."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.ca, self._key = folder / "ca.pem", folder / "ca-key.pem"
        _openssl("req", "-x509", *_EC, "-days", "2", "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.ca)

    def certificate(self, name: str, *alternative_names: str, days: int = 2) -> tuple[Path, Path]:
        """Certificate and key, with e.g. ``DNS:localhost`` (a server) or ``URI:headrace:actor`` (a role). ``days`` -1:
        it has expired."""
        cert, key, request = (self._folder / f"{name}{end}" for end in (".pem", "-key.pem", ".csr"))
        _openssl("req", *_EC, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        names = self._folder / f"{name}.ext"
        names.write_text(f"subjectAltName={','.join(alternative_names)}\n" if alternative_names else "")
        _openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-CAcreateserial",
                 "-days", str(days), "-extfile", names, "-out", cert)  # fmt: skip
        return cert, key


def replace(path: Path, content: str | Path) -> None:
    """As a secret should be replaced: nobody sees half of it."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content.encode() if isinstance(content, str) else content.read_bytes())
    new.replace(path)


_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*words: str | Path) -> None:
    openssl = shutil.which("openssl")
    assert openssl, "the tests need the openssl command to make a certificate"
    subprocess.run([openssl, *map(str, words)], check=True, capture_output=True, timeout=60)
