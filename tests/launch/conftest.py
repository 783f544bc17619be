"""Fixtures that several files of this folder use."""

from tests.faults.conftest import new_run

from .seeds import three_seeds

__all__ = ["new_run", "three_seeds"]
