"""Rules of the description of a tensor."""

from __future__ import annotations

from layergraph.errors import brief
from layergraph.ir.graph import MODULE, Implementation
from layergraph.ir.rules.problems import FieldTypes, Problems, Where
from layergraph.ir.tensor_spec import MAX_DIMENSIONS, TensorSpec

# Torch counts in signed integers of 64 bits.
_SIZES = range(2**63)

_NONE = type(None)


_TENSOR = FieldTypes(
    kind=(str, _NONE),
    dtype=(str, _NONE),
    requires_grad=(bool, _NONE),
    persistent=(bool, _NONE),
    tied=(str, _NONE),
    value=(bytes, _NONE),
    shape=(tuple, _NONE),
    stride=(tuple, _NONE),
)


def check_tensor(
    problems: Problems, place: Where, owner: Implementation, name: object, spec: TensorSpec
) -> None:
    """Check the entry of one tensor."""
    if not problems.expect(place, "entry", spec, TensorSpec):
        return
    problems.expect(place, "name", name, str)
    wrong = problems.wrong_fields(place, spec, _TENSOR)
    shape = spec.shape
    for what, sizes in (("shape", shape), ("stride", spec.stride)):
        if what not in wrong:
            for size in sizes or ():
                if type(size) is not int or size not in _SIZES:
                    remedy = "give numbers of 63 bits that are not negative"
                    problems.add(place, f"its {what} is {brief(sizes)}", remedy)
                    break
            if sizes and len(sizes) > MAX_DIMENSIONS:
                remedy = f"torch computes with {MAX_DIMENSIONS} dimensions at most"
                problems.add(place, f"its {what} has {len(sizes)} dimensions", remedy)
    if spec.kind not in (None, "parameter", "buffer", "constant"):
        problems.add(
            place, f"its kind is {brief(spec.kind)}", "the kinds are parameter, buffer and constant"
        )
    if owner.type == MODULE and (spec.kind is None or (shape is None and spec.tied is None)):
        problems.add(
            place, "its kind or shape is missing", "no constructor would make it: say both"
        )
    if spec.kind == "constant" and spec.value is None and spec.tied is None:
        problems.add(place, "it is a constant without a value", "give its value")
