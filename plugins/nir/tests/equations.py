"""The equations of the primitives, as their definitions say them, in plain numpy."""

from __future__ import annotations

import numpy as np

DT = 1e-4


def fired(v, p):
    spikes = (v > p["v_threshold"]).astype(np.float64)
    return spikes, np.where(spikes > 0, p["v_reset"], v)


def li(x, s, p):
    return s + DT / p["tau"] * ((p["v_leak"] - s) + p["r"] * x)


def step(kind, x, state, p):
    """Return the output and the state of one step of forward Euler."""
    if kind == "LI":
        state = li(x, state, p)
        return state, state
    if kind == "LIF":
        return fired(li(x, state, p), p)
    if kind == "I":
        state = state + DT * p["r"] * x
        return state, state
    if kind == "IF":
        return fired(state + DT * p["r"] * x, p)
    i, v = state if isinstance(state, tuple) else (state, state)
    i = i + DT / p["tau_syn"] * (-i + p["w_in"] * x)
    v = v + DT / p["tau_mem"] * ((p["v_leak"] - v) + p["r"] * i)
    if kind == "CubaLI":
        return v, (i, v)
    spikes, v = fired(v, p)
    return spikes, (i, v)
