"""Merging of the runs of several examples into one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from layergraph.errors import CaptureError
from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import (
    Call,
    Parameter,
    Trace,
    TracedValue,
    wish_of,
)
from layergraph.torch2ir.tracing.other_mode import OtherMode
from layergraph_capture.ways.explore import Ways, traces_of, whole
from layergraph_capture.ways.merge import copied, merged_by_form, merged_by_guard
from layergraph_capture.ways.other_modes import joined_other_mode, swapped
from layergraph_capture.ways.questions import HOLDS
from layergraph_capture.ways.way import NotMergeableError

_CONTAINER = "assume_container"
_NAMED = "assume_named"
_FORMS = {f"layergraph.{each}": each for each in (_CONTAINER, _NAMED)}
Form = tuple[Value, ...]
"""The guard that an argument passes, and the arguments of the guard after the value."""


def one_record(examples: Sequence[Ways]) -> Trace:
    """Return one record of the ways of several examples, in both modes if every run has both.

    Args:
        examples: the ways of each example, in order.

    Raises:
        CaptureError: two runs differ, and no guard or input distinguishes them.
    """
    traces = [trace for each in examples for trace in traces_of(each)]
    other = joined_other_mode(traces)
    record = _record(examples)
    if record.other is None and other is not None:
        with swapped(traces, other) as are_whole:
            if are_whole:
                # The record may be that of a run, which changes back after the block.
                record.other, record.in_other_mode = other, copied(_record(examples))
    return record


def _record(examples: Sequence[Ways]) -> Trace:
    """Return one record of the ways of several examples.

    If the examples themselves take both ways of a decision by a size, runs with forced answers are
    not needed.
    """
    if len(examples) == 1:
        return whole(examples[0])
    try:
        return _merged([whole(each) for each in examples])
    except CaptureError:
        return _merged([whole(each, by_sizes=False) for each in examples])


def _merged(traces: Sequence[Trace]) -> Trace:
    """Return one record of the runs of several examples."""
    try:
        return _by_form(traces, _form)
    except NotMergeableError as error:
        raise CaptureError(
            f"the examples do not fit into one IR: {error}; convert the model once for each"
        ) from None


def _by_form(traces: Sequence[Trace], form_of: Callable[[Parameter, Trace], Form]) -> Trace:
    """Merge the runs whose arguments have the same form, then merge these groups by form."""
    groups: dict[str, tuple[dict[str, Form], list[Trace]]] = {}
    for trace in traces:
        form = {each.name: form_of(each, trace) for each in trace.parameters}
        groups.setdefault(repr(form), (form, []))[1].append(trace)
    # The graph checks the form of the last group first. Groups with tuples without tensors go last,
    # because the form of a tuple with tensors would accept such tuples as well.
    ordered = sorted(groups.values(), key=lambda group: _fixed_containers(group[0]))
    forms = [form for form, _ in ordered]
    first, *others = [_by_facts(group, form_of) for _, group in ordered]
    if not others:
        return first
    names = [name for name in forms[0] if len({repr(each.get(name)) for each in forms}) > 1]
    if not all(each.keys() == forms[0].keys() for each in forms):
        raise NotMergeableError("they do not have the same arguments by name")
    told = [{name: form[name] for name in names} for form in forms]
    record = copied(first)
    _add_guard(record, told)
    for trace, form in zip(others, told[1:], strict=True):
        record = merged_by_form(trace, record, form)
    return record


def _fixed_containers(form: Mapping[str, Form]) -> int:
    """Return the number of arguments that are containers of plain values alone."""
    fixed = (given[0] for guard, *given in form.values() if guard == "assume")
    return sum(isinstance(each, tuple | list | dict) for each in fixed)


def _by_facts(traces: Sequence[Trace], form_of: Callable[[Parameter, Trace], Form]) -> Trace:
    """Merge runs whose arguments have the same form, by guards, or by ranks and dtypes."""
    try:
        return _by_guard(traces)
    except NotMergeableError:
        if form_of is _facts:
            raise
    # Code may read ranks and dtypes, for which the calls contain no guard.
    return _by_form(traces, _facts)


def _by_guard(traces: Sequence[Trace]) -> Trace:
    """Merge runs that differ at guards."""
    first, *others = traces
    records = [merged_by_guard(first, each) for each in others]
    questions = [question for _, question in records if question is not None]
    if not questions:
        # They make the same calls, but in the other mode maybe not.
        first.other = _joined(first.other, [each.other for each, _ in records])
        return first
    if len(records) == 1:
        return records[0][0]
    # Runs that agree at the earliest guard form groups; merge inside the groups first.
    earliest = min(questions, key=lambda question: question.position)
    groups: dict[str, list[Trace]] = {earliest.own: [first]}
    for trace, (_, question) in zip(others, records, strict=True):
        own = earliest.own
        if question is not None and question.position == earliest.position:
            own = question.other
        groups.setdefault(own, []).append(trace)
    *before, record = [_by_guard(group) for group in groups.values()]
    for trace in reversed(before):
        record, _ = merged_by_guard(trace, record)
    return record


def _joined(own: OtherMode | None, merged: Sequence[OtherMode | None]) -> OtherMode | None:
    """Return the other mode of a run whose merged records have these other modes."""
    known = [each for each in merged if each is not None]
    if own is None or len(known) < len(merged):
        return None
    return replace(own, readings={reading for each in known for reading in each.readings})


def _form(parameter: Parameter, trace: Trace) -> Form:
    where = f"the input {parameter.name!r}"
    if parameter.fixed:
        return "assume", parameter.fixed[0], where
    for item in trace.root.items:
        if isinstance(item, Call) and item.target in _FORMS:
            value, *said = item.args
            if value is parameter.value:
                return _FORMS[item.target], *said
    return "assume_tensor", parameter.name


def _facts(parameter: Parameter, trace: Trace) -> Form:
    """Return the form of an argument, with its rank and dtype."""
    value, form = parameter.value, _form(parameter, trace)
    return (*form, value.rank, value.dtype) if form[0] == "assume_tensor" else form


def _add_guard(trace: Trace, told: Sequence[Mapping[str, Form]]) -> None:
    """Move the checks of argument forms from the inputs into the graph.

    Args:
        trace: the record of the first group, whose form the graph checks last.
        told: the forms that distinguish the groups, for each group.
    """
    added: list[Call] = []
    fits: TracedValue | None = None
    for index, each in enumerate(trace.parameters):
        if each.name in told[0]:
            trace.parameters[index] = replace(each, fixed=())
            guard, *given = told[0][each.name]
            held = _add(added, HOLDS, (guard, each.value, *given), each.value)
            both = "operator.and_", (fits, held), each.value
            fits = held if fits is None else _add(added, *both)
    if fits is not None:
        listed = "; ".join(map(_said, told))
        otherwise = f"it fits none of the examples: {listed}; capture it among the examples"
        args = (fits, True, "the call", otherwise)
        _add(added, "layergraph.assume_truth", args, fits)
    trace.root.items[:0] = added


def _add(added: list[Call], target: str, args: tuple[Value, ...], at: TracedValue) -> TracedValue:
    value = TracedValue(at.position, at.scope, wish_of(target))
    value.call = Call("function", target, args, {}, value)
    added.append(value.call)
    return value


def _said(forms: Mapping[str, Form]) -> str:
    """Return the text of the forms of one example."""
    texts = []
    for name, (guard, *given) in forms.items():
        kind = "a tensor"
        if guard == "assume":
            kind = "not given" if given[0] is ... else repr(given[0])
        elif guard == _CONTAINER:
            kind = f"a {given[0]} of {given[1]!r}"
        elif guard == _NAMED:
            kind = str(given[1])
        texts.append(f"{name}={kind}")
    return " and ".join(texts)
