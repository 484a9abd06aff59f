"""Neurons that keep their state (``init_hidden=True``), and also accept it as an argument.

snntorch's own neurons refuse the argument. The graph needs it: if the code of a model assigns a
state, as :func:`snntorch.utils.reset` does, the graph passes the state by name in the next call.
"""

from __future__ import annotations

import functools
from typing import Any

import snntorch  # type: ignore[import-untyped]


def _taking_states(cls: Any) -> Any:
    original = cls.forward

    @functools.wraps(original)
    def forward(self: Any, input_: Any, *given: Any, **states: Any) -> Any:
        if self.init_hidden:
            for name, state in states.items():
                if state is not None:
                    setattr(self, name, state)
            states = {}
        return original(self, input_, *given, **states)

    members = {"__module__": __name__, "__doc__": cls.__doc__, "forward": forward}
    return type(cls.__name__, (cls,), members)


Alpha = _taking_states(snntorch.Alpha)
Lapicque = _taking_states(snntorch.Lapicque)
Leaky = _taking_states(snntorch.Leaky)
RLeaky = _taking_states(snntorch.RLeaky)
RSynaptic = _taking_states(snntorch.RSynaptic)
SConv2dLSTM = _taking_states(snntorch.SConv2dLSTM)
SLSTM = _taking_states(snntorch.SLSTM)
Synaptic = _taking_states(snntorch.Synaptic)
