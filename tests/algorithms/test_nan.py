"""A batch whose loss is not a number costs its own step and nothing else, whatever the algorithm."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headrace.algorithms.base import Batch
from tests.algorithms.test_device import CASES, batch_for, make, parameters


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_parameters_stay_finite_and_learning_goes_on(case: str, value: float) -> None:
    algorithm, batch = make(case), batch_for(case)
    poisoned = "behaviour_logp" if "behaviour_logp" in batch.arrays else "reward"
    bad = {**batch.arrays, poisoned: np.full_like(batch.arrays[poisoned], value)}
    algorithm.update(batch)
    algorithm.update(Batch(bad, batch.steps))
    after = parameters(algorithm)
    assert torch.isfinite(after).all()
    algorithm.update(batch)
    assert torch.isfinite(parameters(algorithm)).all()
    assert not torch.equal(parameters(algorithm), after)
