"""Check of an IR against all rules: the table is here, the rules are in ``rules/``.

These rules hold for every graph. Rules of one layer type are the concern of its handler.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from layergraph.errors import ArgumentError, InvalidIrError, Problem
from layergraph.ir.mapping import Implementations
from layergraph.ir.rules.problems import Problems, TooManyProblemsError

_Rule = Callable[[Problems, Implementations], None]
_Stages = tuple[tuple[_Rule, ...], ...]


def _stages() -> _Stages:
    """Return the table of rules.

    A stage runs if the stages before it found nothing: its rules may assume what those check.
    """
    # These modules load at the first check, because start-up does without them.
    from layergraph.ir.rules import bodies, calls, fields, graphs, hierarchy

    return (
        (fields.check_parts,),
        (graphs.check_graphs, hierarchy.check_hierarchy, bodies.check_bodies),
        (calls.check_calls,),
    )


def check(ir: Implementations) -> None:
    """Raise if an IR breaks a rule.

    Raises:
        InvalidIrError: the IR breaks rules; the error lists them.
        ArgumentError: the argument is no IR.

    Example:
        >>> from layergraph.errors import InvalidIrError
        >>> from layergraph.ir import Implementation, Ir, check
        >>> try:
        ...     check(Ir([Implementation("linear", {"units": object()}, name="root")]))
        ... except InvalidIrError as error:
        ...     print(error.problems[0].message[:32])
        its attribute 'units' holds <obj
    """
    problems = find_problems(ir)
    if problems:
        raise InvalidIrError(problems)


def check_attributes(ir: Implementations) -> None:
    """Raise if a field of an implementation breaks a rule. This does not check the graphs.

    A capture makes the graphs itself, but takes attributes from handlers.

    Raises:
        InvalidIrError: the IR breaks rules; the error lists them.
    """
    from layergraph.ir.rules import fields

    problems = _found(((fields.check_implementations,),), ir)
    if problems:
        raise InvalidIrError(problems)


def find_problems(ir: Implementations) -> list[Problem]:
    """Return the rules that an IR breaks, in the order of the IR; none for a valid one.

    Rules about the whole are checked only if every part is valid. The search ends at
    ``MAX_PROBLEMS``.

    Example:
        >>> from layergraph.ir import Implementation, Ir, find_problems
        >>> find_problems(Ir([Implementation("linear", {"units": 3}, name="root")]))
        []
    """
    return _found(_stages(), ir)


def _found(stages: _Stages, ir: Implementations) -> list[Problem]:
    if not isinstance(ir, Implementations):
        raise ArgumentError(
            f"a {type(ir).__name__} stands where the Ir belongs; layergraph.to_ir(model) gives one"
        )
    problems = Problems()
    with suppress(TooManyProblemsError):
        for stage in stages:
            for rule in stage:
                rule(problems, ir)
            if problems.found:
                break
    return problems.found
