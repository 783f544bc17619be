"""`make test` plays each fault in one form, in less than four minutes all together; the forms that only differ in the
algorithm, the client or the length are `make test-faults`'s."""

from __future__ import annotations

from typing import Any

import pytest


def long(*values: Any) -> Any:
    """A case of a parametrised test that is in `make test-faults` only."""
    return pytest.param(*values, marks=pytest.mark.faults_full)
