"""Fixtures that several files of this folder use."""

from .seeds import three_seeds

__all__ = ["three_seeds"]
