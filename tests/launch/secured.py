"""A real broker as docker-compose.yml configures it: SCRAM over TLS, rights by ACLs, and a listener for setup."""

from __future__ import annotations

from pathlib import Path

from headrace.launch.setup import files
from headrace.launch.setup.files import Names
from tests.broker import OwnBroker
from tests.ports import free_ports


class Secured:
    """``clients`` asks for a login, ``admin`` lets everybody do anything; ``secrets`` is what `setup files` made."""

    def __init__(self, folder: Path) -> None:
        self.secrets = folder / "secrets"
        files.make(self.secrets, Names(paramserver=("localhost",), kafka=("127.0.0.1",)))
        port, controller_port, clients_port = free_ports(3)
        self.admin, self.clients = f"127.0.0.1:{port}", f"127.0.0.1:{clients_port}"
        listeners = f"PLAINTEXT://{self.admin},CLIENTS://{self.clients}"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        settings = {
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CLIENTS:SASL_SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.name.clients.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.clients.scram-sha-512.sasl.jaas.config": scram,
            "listener.name.clients.ssl.keystore.type": "PEM",
            "listener.name.clients.ssl.keystore.location": str(self.secrets / "kafka" / "keystore.pem"),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        self.broker = OwnBroker(folder / "broker", settings, port)

    def login(self, user: str) -> dict[str, str]:
        """The environment of a role whose user at the broker this is."""
        return {
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD_FILE": str(self.secrets / user / "kafka.password"),
            "KAFKA_SSL_CAFILE": str(self.secrets / user / "ca.crt"),
        }

    def weights(self, role: str, address: str) -> list[str]:
        """The settings of a role's way to the parameter server."""
        own = self.secrets / role
        wanted = {"address": address}
        if role == "paramserver":
            wanted |= {"tls_cert": "server.crt", "tls_key": "server.key", "tls_client_ca": "ca.crt"}
            wanted |= {"publish_token_file": "publish.token", "token_file": "subscribe.token"}
        else:
            wanted |= {"tls_ca": "ca.crt", "tls_client_cert": "client.crt", "tls_client_key": "client.key"}
            token = "publish" if role == "learner" else "subscribe"
            wanted |= {"publish_token_file" if role == "learner" else "token_file": f"{token}.token"}
        values = {key: value if key == "address" else str(own / value) for key, value in wanted.items()}
        return [word for key, value in values.items() for word in ("--set", f"weights.{key}='{value}'")]
