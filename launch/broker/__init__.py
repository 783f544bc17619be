"""A real Apache Kafka on this machine without Docker: one KRaft node from Apache's own jars.

    headrace broker start --data-dir D     cli.py -> server.start -> jars.resolve (once) -> format -> java kafka.Kafka
    headrace broker status|stop            cli.py -> server.status | server.stop

Everything of one broker is in its data directory: ``broker.json`` (who it is), ``server.properties``, ``broker.log``
and ``log/`` (Kafka's own files). Loopback only; there is no authentication.
"""

from headrace.launch.broker.server import BrokerInfo, start, status, stop

__all__ = ["BrokerInfo", "start", "status", "stop"]
