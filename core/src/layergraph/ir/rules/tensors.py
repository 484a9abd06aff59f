"""Rules of the description of a tensor."""

from __future__ import annotations

from layergraph.errors import Place, brief
from layergraph.ir.graph import MODULE, Implementation
from layergraph.ir.rules.problems import FieldTypes, Problems, Where
from layergraph.ir.rules.values import check_value
from layergraph.ir.tensor_spec import MAX_DIMENSIONS, Packing, TensorSpec

# Torch stores sizes in signed integers of 64 bits.
_SIZES = range(2**63)

_NONE = type(None)


_TENSOR = FieldTypes(
    kind=(str, _NONE),
    dtype=(str, _NONE),
    requires_grad=(bool, _NONE),
    persistent=(bool, _NONE),
    narrows=(bool, _NONE),
    tied=(str, _NONE),
    value=(bytes, _NONE),
    shape=(tuple, _NONE),
    stride=(tuple, _NONE),
    packed=(Packing, _NONE),
)
_PACKING = FieldTypes(kind=(str,), parts=(dict,), data=(dict,))
# Only the whole tensor has these fields, not its parts.
_OF_THE_WHOLE = ("kind", "requires_grad", "persistent", "narrows", "tied", "packed")


def check_tensor(
    problems: Problems, place: Where, owner: Implementation, name: object, spec: TensorSpec
) -> None:
    """Check the entry of one tensor."""
    if not problems.expect(place, "entry", spec, TensorSpec):
        return
    problems.expect(place, "name", name, str)
    wrong = problems.wrong_fields(place, spec, _TENSOR)
    _check_sizes(problems, place, spec, wrong)
    shape, packed = spec.shape, spec.packed
    if packed is not None and "packed" not in wrong:
        if spec.value is not None or spec.stride is not None:
            remedy = "say these of its parts"
            problems.add(place, "it has parts, and a value or a stride besides", remedy)
        _check_packing(problems, place, packed)
    if spec.kind not in (None, "parameter", "buffer", "constant"):
        problems.add(
            place, f"its kind is {brief(spec.kind)}", "the kinds are parameter, buffer and constant"
        )
    if owner.type == MODULE and (spec.kind is None or (shape is None and spec.tied is None)):
        problems.add(place, "its kind or shape is missing", "no constructor makes it: state both")
    if spec.kind == "constant" and spec.tied is None:
        # Fields of wrong types are already reported.
        held = spec.held() if "packed" not in wrong and _is_made(packed) else ()
        if any(each.value is None for each in held if isinstance(each, TensorSpec)):
            problems.add(place, "it is a constant without a value", "give its value")


def _is_made(packed: Packing | None) -> bool:
    return packed is None or type(packed.parts) is dict


def _check_packing(problems: Problems, place: Where, packed: Packing) -> None:
    """Check the parts and plain values of a packed tensor."""
    wrong = problems.wrong_fields(place, packed, _PACKING)
    here = place if isinstance(place, Place) else place[0].at(*place[1:])
    for name, part in packed.parts.items() if "parts" not in wrong else ():
        at = (here, "part", name)
        if type(name) is not str or not name or "." in name:
            problems.add(at, f"its name is {brief(name)}", "give it a name without a dot")
        if not problems.expect(at, "entry", part, TensorSpec):
            continue
        _check_sizes(problems, at, part, problems.wrong_fields(at, part, _TENSOR))
        said = [field for field in _OF_THE_WHOLE if getattr(part, field) is not None]
        if said:
            problems.add(at, f"it says {', '.join(said)}", "say that of the whole tensor")
        if part.shape is None:
            problems.add(at, "its shape is missing", "state it")
    for key, value in packed.data.items() if "data" not in wrong else ():
        if problems.expect(here, "name of a value", key, str):
            check_value(problems, here, "attribute", key, value)


def _check_sizes(problems: Problems, place: Where, spec: TensorSpec, wrong: list[str]) -> None:
    for what, sizes in (("shape", spec.shape), ("stride", spec.stride)):
        if what not in wrong:
            for size in sizes or ():
                if type(size) is not int or size not in _SIZES:
                    remedy = "give numbers of 63 bits that are not negative"
                    problems.add(place, f"its {what} is {brief(sizes)}", remedy)
                    break
            if sizes and len(sizes) > MAX_DIMENSIONS:
                remedy = f"torch computes with {MAX_DIMENSIONS} dimensions at most"
                problems.add(place, f"its {what} has {len(sizes)} dimensions", remedy)
