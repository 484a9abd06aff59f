"""Fixtures of all tests of this plugin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import snntorch as snn


@pytest.fixture(autouse=True)
def no_neurons_of_other_tests() -> Iterator[None]:
    """Let snntorch forget all neurons: a reset goes to each one, also to those without numbers."""
    kept = list(snn.SpikingNeuron.instances)
    snn.SpikingNeuron.instances.clear()
    yield
    snn.SpikingNeuron.instances[:0] = kept
