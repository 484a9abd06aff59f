"""The loop of a graph: a function that runs a body a number of times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.overrides import handle_torch_function

from layergraph.control_flow.choices import is_recorded
from layergraph.errors import AssumptionError


def loop(
    body: Callable[..., Any],
    turns: int,
    carried: tuple[Any, ...] = (),
    given: tuple[Any, ...] = (),
    collected: int = 0,
) -> tuple[Any, ...]:
    """Run a body a number of times, each time on the values that the last iteration returned.

    Args:
        body: a function. It takes the number of the iteration, the carried values, and the given
            ones. It returns one tuple: the next carried values, then the values to collect.
        turns: the number of iterations, 0 or more.
        carried: the carried values of the first iteration.
        given: values that are the same in each iteration.
        collected: the number of values to collect per iteration.

    Returns:
        The carried values after the last iteration, then for each collected value the list of its
        values in all iterations.

    Raises:
        AssumptionError: ``turns`` is negative, or the body returns another number of values.

    Example:
        >>> from layergraph.control_flow.loops import loop
        >>> loop(lambda turn, total, step: (total + step, turn), 3, (0,), (10,), 1)
        (30, [0, 1, 2])
    """
    if is_recorded(turns):
        return handle_torch_function(loop, (turns,), body, turns, carried, given, collected)
    if turns < 0:
        raise AssumptionError(
            f"a loop of the graph has {turns} turns; the model was captured with more: capture it "
            "with an example like this input"
        )
    lists: list[list[Any]] = [[] for _ in range(collected)]
    kept = len(carried)
    for turn in range(turns):
        values = body(turn, *carried, *given)
        if len(values) != kept + collected:
            raise AssumptionError(
                f"the body of a loop returns {len(values)} values; return {kept} carried ones and "
                f"{collected} to collect"
            )
        carried = values[:kept]
        for each, value in zip(lists, values[kept:], strict=True):
            each.append(value)
    return (*carried, *lists)
