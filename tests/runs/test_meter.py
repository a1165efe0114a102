"""What the loop measures between two lines of the log."""

import math

import numpy as np
import pytest

from alexnet_jax.runs.meter import Meter, NotFinite, no_sums
from alexnet_jax.scores import METRICS


def test_a_loss_that_is_no_number_is_told_with_its_update():
    meter = Meter()
    losses = {"loss": np.array([1, math.nan, math.inf], np.float32)}
    meter.add(12, dict.fromkeys(METRICS, np.zeros(3, np.float32)) | losses, images=24)
    with pytest.raises(NotFinite) as error:
        meter.summed(no_sums())
    assert error.value.step == 11
    assert math.isnan(error.value.loss)
