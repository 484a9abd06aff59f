"""Convert settings of torchao to plain values and back: enums and configs by their names.

A file may name only the classes in this table.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from enum import Enum
from typing import Any

from layergraph import Symbol
from layergraph.literals import torch_value

_ENUMS = {
    "KernelPreference": "torchao.quantization.quantize_.common",
    "IntxUnpackedToInt8TensorActivationQuantization": (
        "torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor"
    ),
    "MappingType": "torchao.quantization",
    "ZeroPointDomain": "torchao.quantization",
}
_SETTINGS = {
    "Float8FakeQuantizeConfig": "torchao.quantization.qat",
    "Float8MMConfig": "torchao.float8.inference",
    "Int4WeightFakeQuantizeConfig": "torchao.quantization.qat",
    "IntxFakeQuantizeConfig": "torchao.quantization.qat",
    "PerAxis": "torchao.quantization",
    "PerBlock": "torchao.quantization",
    "PerGroup": "torchao.quantization",
    "PerRow": "torchao.quantization",
    "PerTensor": "torchao.quantization",
    "PerToken": "torchao.quantization",
    "QuantizeTensorToFloat8Kwargs": "torchao.quantization.quantize_.workflows",
    "QuantizeTensorToInt8Kwargs": "torchao.quantization.quantize_.workflows",
}


def said(value: Any) -> Any:
    """Return a setting as plain values.

    A member of an enum becomes ``{"enum": NAME, "value": NAME}``, and a config becomes
    ``{"class": NAME, "fields": {…}}``. Any other value stays unchanged.

    Example:
        >>> from torchao.quantization import MappingType
        >>> from layergraph_torchao.values import said
        >>> said(MappingType.SYMMETRIC)
        {'enum': 'MappingType', 'value': 'SYMMETRIC'}
    """
    cls = type(value)
    if isinstance(value, Enum) and cls is _class(_ENUMS, cls.__name__):
        return {"enum": cls.__name__, "value": value.name}
    if cls.__name__ in _SETTINGS and cls is _class(_SETTINGS, cls.__name__):
        return {
            "class": cls.__name__,
            "fields": {name: said(getattr(value, name)) for name in _fields(cls)},
        }
    return value


def restored(form: Any) -> Any:
    """Return the setting that plain values describe.

    Raises:
        ValueError: the values do not describe a setting.

    Example:
        >>> from layergraph_torchao.values import restored
        >>> restored({"class": "PerGroup", "fields": {"group_size": 32}})
        PerGroup(group_size=32)
    """
    if isinstance(form, Symbol):
        return torch_value(form)
    if not isinstance(form, dict):
        return form
    if form.keys() == {"enum", "value"}:
        enum: Any = _class(_ENUMS, form["enum"])
        if enum is not None and isinstance(form["value"], str):
            found = enum.__members__.get(form["value"])
            if found is not None:
                return found
    if form.keys() == {"class", "fields"} and isinstance(form["fields"], dict):
        cls: Any = _class(_SETTINGS, form["class"])
        if cls is not None and form["fields"].keys() == set(_fields(cls)):
            fields = {name: restored(each) for name, each in form["fields"].items()}
            return cls(**fields)
    raise ValueError(f"{form!r:.200} is not a setting of torchao")


def _class(homes: Mapping[str, str], name: object) -> type | None:
    home = homes.get(name) if isinstance(name, str) else None
    if home is None:
        return None
    try:
        found = getattr(importlib.import_module(home), str(name), None)
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def _fields(cls: Any) -> list[str]:
    if dataclasses.is_dataclass(cls):
        return [each.name for each in dataclasses.fields(cls)]
    return list(cls._fields)
