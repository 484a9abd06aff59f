"""One record of the runs of several examples."""

from __future__ import annotations

from collections.abc import Sequence

from layergraph.errors import CaptureError
from layergraph.ir import Value
from layergraph.torch2ir.tracing.module_call import Call, Parameter, Trace, TracedValue, wish_of
from layergraph_capture.ways.merge import copied, merged_by_form, merged_by_guard
from layergraph_capture.ways.way import NotMergeableError

_CONTAINER = "assume_container"
Form = tuple[Value, ...]
"""The guard that an argument passes, and the arguments of the guard behind the value."""


def merged_examples(traces: Sequence[Trace]) -> Trace:
    """Return one record of the runs of several examples.

    Examples whose arguments have the same form are merged first. Their runs differ at a guard.
    The form of the arguments then tells the groups apart.

    Args:
        traces: the record of each example, in order.

    Raises:
        CaptureError: two runs differ in something that neither a guard nor the inputs tell.
    """
    try:
        groups = list(_grouped(traces))
        if len(groups) == 1:
            return groups[0]
        forms = [{each.name: _form(each, trace) for each in trace.parameters} for trace in groups]
        varying = [name for name in forms[0] if len({repr(each.get(name)) for each in forms}) > 1]
        whole = copied(groups[0])
        _add_guards(whole, {name: forms[0][name] for name in varying})
        for trace, form in zip(groups[1:], forms[1:], strict=True):
            whole = merged_by_form(trace, whole, {name: form[name] for name in varying})
        return whole
    except NotMergeableError as error:
        raise CaptureError(
            f"the examples do not fit into one IR: {error}; convert the model once for each"
        ) from None


def _grouped(traces: Sequence[Trace]) -> Sequence[Trace]:
    """Return one record for each form of the arguments."""
    groups: dict[str, Trace] = {}
    for trace in traces:
        key = repr([(each.name, _form(each, trace)) for each in trace.parameters])
        groups[key] = _both(groups[key], trace) if key in groups else trace
    return list(groups.values())


def _both(one: Trace, other: Trace) -> Trace:
    """Merge two runs whose arguments have the same form."""
    try:
        return merged_by_guard(one, other)
    except NotMergeableError:
        # Code may ask for ranks and dtypes, which no guard among the calls tells.
        forms = {
            each.name: ("assume_tensor", each.name, each.value.rank, each.value.dtype)
            for each, twin in zip(one.parameters, other.parameters, strict=True)
            if (each.value.rank, each.value.dtype) != (twin.value.rank, twin.value.dtype)
        }
        if not forms:
            raise
        return merged_by_form(one, other, forms)


def _form(parameter: Parameter, trace: Trace) -> Form:
    where = f"the input {parameter.name!r}"
    if parameter.fixed:
        return "assume", parameter.fixed[0], where
    for item in trace.root.items:
        if isinstance(item, Call) and item.target == f"layergraph.{_CONTAINER}":
            value, *said = item.args
            if value is parameter.value:
                return _CONTAINER, *said
    return "assume_tensor", parameter.name


def _add_guards(trace: Trace, forms: dict[str, Form]) -> None:
    """Check the form of arguments in the graph, and no more at its inputs."""
    added = []
    for index, each in enumerate(trace.parameters):
        if each.name in forms:
            guard, *given = forms[each.name]
            trace.parameters[index] = Parameter(each.name, each.value, each.default)
            if guard != _CONTAINER:  # its guards are there
                target = f"layergraph.{guard}"
                value = TracedValue(each.value.position, trace.root, wish_of(target))
                value.call = Call("function", target, (each.value, *given), {}, value)
                added.append(value.call)
    trace.root.items[:0] = added
