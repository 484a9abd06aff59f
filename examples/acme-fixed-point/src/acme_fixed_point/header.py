"""Write the C header for Acme's firmware."""

from __future__ import annotations

import re
from pathlib import Path

from acme_fixed_point.widths import FRAC, TOTAL
from layergraph import Format, Implementation, Ir, hookimpl
from layergraph.errors import FileError


@hookimpl
def formats() -> list[Format]:
    """List the format ``.h``, so that ``layergraph.save(ir, "model.h")`` writes the header."""
    return [Format(".h", "the header for Acme's firmware", write=_write)]


def _write(ir: Ir, path: str | Path, state_dict: object) -> None:
    if state_dict is not None:
        raise FileError(f"{path}: a header holds no weights; save without a state dict")
    Path(path).write_text(c_header(ir), encoding="ascii")


class UnknownUnitError(ValueError):
    """A model contains a layer that Acme's chip cannot compute."""


def c_header(ir: Ir) -> str:
    """Return the sizes and widths of a model's layers, in execution order.

    Raises:
        UnknownUnitError: the chip has no unit for a layer, or the layer has no widths.
    """
    flat = ir.flatten()
    lines = ["#pragma once"]
    for node in flat[flat.root].nodes.values():
        if node.is_call:
            lines += ["", *_lines(flat[node.implementation])]
        elif node.type == "function":
            raise UnknownUnitError(f"{node.name}: there is no unit for {node.implementation}")
    return "\n".join(lines) + "\n"


def _lines(layer: Implementation) -> list[str]:
    name = re.sub(r"\W", "_", f"layer_{layer.name}").upper()
    if layer.type == "relu":
        return [f"#define {name}_IS_RELU 1"]
    if layer.type != "linear":
        raise UnknownUnitError(f"{layer.name}: there is no unit for {layer.type}")
    if TOTAL not in layer.data:
        raise UnknownUnitError(f"{layer.name}: it has no widths; call choose_widths")
    total_bits, inputs = int(str(layer.data[TOTAL])), int(str(layer.data["in_features"]))
    numbers = {
        "INPUTS": inputs,
        "OUTPUTS": layer.data["out_features"],
        "TOTAL_BITS": total_bits,
        "FRAC_BITS": layer.data[FRAC],
        # A product is twice as wide as its factors, and doubling the number of summands adds one
        # bit.
        "ACCUMULATOR_BITS": 2 * total_bits + inputs.bit_length(),
    }
    return [f"#define {name}_{what} {number}" for what, number in numbers.items()]
