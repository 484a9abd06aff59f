"""Capture in both modes, so that what follows the mode in the model follows it in the graph."""

from __future__ import annotations

from collections.abc import Callable

from layergraph.assumptions import assume
from layergraph.errors import CaptureError
from layergraph.ir import Value as Plain
from layergraph.ir.values import leaves, parts
from layergraph.torch2ir.calls import Call, ModeRead, Scope, Value, scopes
from layergraph.torch2ir.survey import Survey
from layergraph.torch2ir.trace import Trace

_ASSUME = f"layergraph.{assume.__name__}"


def capture(survey: Survey, run: Callable[[], Trace]) -> Trace:
    """Run a capture, and again in the other mode if the model's code asked for the mode.

    Where both captures are the same but for flags that are True in one and False in the other, the
    flags become readings of the mode. Otherwise the first capture stands, with the mode of each
    module that was asked for it as an assumption.

    Args:
        survey: the model.
        run: captures it as it stands.

    Raises:
        CaptureError: the capture in the model's own mode failed.
    """
    first = run()
    reading = [scope for scope in scopes(first.root) if any(map(_is_mode, scope.items))]
    if not reading:
        return first
    second = _in_other_mode(survey, run)
    follows = second is not None and _merge(first.root, second.root)
    for scope in reading:
        if follows:
            scope.items = [item for item in scope.items if not _is_mode(item)]
        else:
            for item in scope.items:
                if isinstance(item, Call) and item.kind == "mode":
                    _to_assumption(item)
    return first


def _is_mode(item: Call | Scope) -> bool:
    return isinstance(item, Call) and item.kind == "mode"


def _to_assumption(call: Call) -> None:
    where = f"training of {call.target or 'the model'!r} ({call.where})"
    call.args = (ModeRead(call.target), call.args[0], where)
    call.kind, call.target = "function", _ASSUME
    call.value.wish = assume.__name__


def _in_other_mode(survey: Survey, run: Callable[[], Trace]) -> Trace | None:
    modules = [
        module
        for each in survey
        for module in (each.module.modules() if each.is_leaf else [each.module])
    ]
    before = [(module, module.training) for module in modules]
    try:
        for module, training in before:
            module.training = not training
        return run()
    except CaptureError:
        return None
    finally:
        for module, training in before:
            module.training = training


class _DifferentError(Exception):
    """The two captures are different graphs."""


def _merge(one: Scope, other: Scope) -> bool:
    """Write into one capture where it follows the mode; False, and nothing written, if it differs
    from the other in more than that."""
    merged: list[tuple[Call, tuple[Plain, ...], dict[str, Plain]]] = []
    pairs = list(zip(scopes(one), scopes(other), strict=False))
    try:
        if pairs[-1] != (one, other):
            return False
        for mine, theirs in pairs:
            _compare_scopes(mine, theirs)
            for call, twin in zip(mine.items, theirs.items, strict=True):
                if isinstance(call, Call) and isinstance(twin, Call) and call.kind != "mode":
                    merged.append(
                        (
                            call,
                            _merged(call.args, twin.args, mine),
                            _merged(call.kwargs, twin.kwargs, mine),
                        )
                    )
        result = _merged(one.result, other.result, one)
    except _DifferentError:
        return False
    for call, args, kwargs in merged:
        call.args, call.kwargs = args, kwargs
    one.result = result
    return True


def _compare_scopes(mine: Scope, theirs: Scope) -> None:
    same = (
        mine.path == theirs.path
        and (mine.start, mine.end) == (theirs.start, theirs.end)
        and len(mine.items) == len(theirs.items)
        and _values(mine.args, mine.kwargs, mine.result)
        == _values(theirs.args, theirs.kwargs, theirs.result)
    )
    if not same:
        raise _DifferentError
    for item, twin in zip(mine.items, theirs.items, strict=True):
        if type(item) is not type(twin):
            raise _DifferentError
        if isinstance(item, Call) and isinstance(twin, Call):
            if (item.kind, item.target) != (twin.kind, twin.target):
                raise _DifferentError


def _values(*plain: Plain) -> list[int]:
    return [leaf.position for leaf in leaves(*plain) if isinstance(leaf, Value)]


def _merged(mine: Plain, theirs: Plain, scope: Scope) -> Plain:
    if type(mine) is not type(theirs):
        raise _DifferentError
    inside, twins = parts(mine), parts(theirs)
    if inside is None:
        if isinstance(mine, Value):
            same = mine.position == theirs.position
        elif type(mine) is bool and mine != theirs:
            return _followed(mine, scope)
        else:
            same = mine == theirs or mine is theirs or (mine != mine and theirs != theirs)
        if not same:
            raise _DifferentError
        return mine
    if type(mine) is dict and list(mine) != list(theirs):
        raise _DifferentError
    if len(inside) != len(twins or ()):
        raise _DifferentError
    merged = [_merged(each, twin, scope) for each, twin in zip(inside, twins or (), strict=True)]
    return _rebuilt(mine, merged)


def _rebuilt(like: Plain, items: list[Plain]) -> Plain:
    if type(like) is dict:
        return dict(zip(like, items, strict=True))
    if type(like) in (list, tuple):
        return type(like)(items)
    if type(like) is slice:
        return slice(*items)
    return type(like)(like.type, dict(zip(like.fields, items, strict=True)))


def _followed(flag: bool, scope: Scope) -> ModeRead:
    """The mode that a flag follows: of the nearest module around it whose mode was asked for."""
    around: Scope | None = scope
    while around is not None:
        for item in around.items:
            if isinstance(item, Call) and item.kind == "mode":
                if item.args[0] is flag:
                    return ModeRead(around.path)
                raise _DifferentError
        around = around.parent
    raise _DifferentError
