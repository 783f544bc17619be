"""What runs here: the labels of ``headrace_build_info``."""

from __future__ import annotations

import importlib.metadata
import os
import platform

#: Which commit an image was built from; whoever builds it sets this in its environment.
COMMIT = "HEADRACE_COMMIT"


def build_labels(with_torch: bool) -> dict[str, str]:
    """``with_torch``: of a role that loads torch. What is not known is empty; nothing is imported to find out."""
    return {
        "version": _version("headrace"),
        "python": platform.python_version(),
        "torch": _version("torch") if with_torch else "",
        "commit": os.environ.get(COMMIT, ""),
    }


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
