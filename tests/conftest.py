"""Fixtures and hooks that every test may use; each has a file of its own."""

from .broker import (
    kafka_bootstrap,
    kafka_jars,
    pytest_collection_modifyitems,
    pytest_terminal_summary,
    real_kafka,
)

__all__ = ["kafka_bootstrap", "kafka_jars", "pytest_collection_modifyitems", "pytest_terminal_summary", "real_kafka"]
