"""The server's certificate, key and authority: those of the files at every new connection. Connections that are there
go on with what they began with."""

from __future__ import annotations

from typing import Any

import grpc

from headrace.common.reloaded import Reloaded
from headrace.paramserver.options import Options


def server_credentials(options: Options) -> grpc.ServerCredentials | None:
    """None for a server in clear. Raises :class:`UsageError` for files that will not do; should they come to that
    later, the former ones stay in use, and it is said once. gRPC borrows what is returned: keep it with the server."""
    if options.tls_cert is None or options.tls_key is None:
        return None
    files = [path for path in (options.tls_cert, options.tls_key, options.tls_client_ca) if path is not None]
    certificates = Reloaded(files, lambda: _configuration(options))
    used = certificates.now()

    def changed() -> Any:
        """Called by gRPC before every handshake; None: as before."""
        nonlocal used
        if (read := certificates.now()) is used:
            return None
        used = read
        return read

    return grpc.dynamic_ssl_server_credentials(used, changed, options.tls_client_ca is not None)


def _configuration(options: Options) -> Any:
    options.check_tls()
    assert options.tls_cert is not None
    assert options.tls_key is not None
    pair = (options.tls_key.read_bytes(), options.tls_cert.read_bytes())
    client_ca = options.tls_client_ca.read_bytes() if options.tls_client_ca else None
    return grpc.ssl_server_certificate_configuration([pair], client_ca)
