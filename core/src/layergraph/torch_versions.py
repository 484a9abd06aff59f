"""Differences between the releases of torch that layergraph runs on: torch 2.6 and newer.

Only this module depends on release numbers. Other code checks for a feature here, or calls a
function that behaves the same on every release. We detect a feature from Python if possible. The
release number decides only for features of the compiler and of C++ code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._C._dynamo import guards
from torch.fx._pytree import register_pytree_flatten_spec
from torch.fx.graph import PythonCode
from torch.utils._pytree import TreeSpec


class Feature(NamedTuple):
    """A feature that older releases of torch lack.

    Attributes:
        is_here: whether this torch has it.
        up_to: the newest of the tested releases that lacks it.
        without: the consequence for a release that lacks it.
    """

    is_here: bool
    up_to: str
    without: str


RELEASE = tuple(int(number) for number in torch.__version__.split(".")[:2])
"""The release of this torch, as ``(2, 6)``."""

FEATURES: dict[str, Feature] = {
    "compiled_autocast": Feature(
        RELEASE >= (2, 13),
        "2.9",
        "torch.compile fails where a graph enters autocast",
    ),
    "compiled_named_tuples": Feature(
        RELEASE >= (2, 9),
        "2.6",
        "torch.compile breaks the graph where it makes a named tuple or an output",
    ),
    "cond_under_modes": Feature(
        RELEASE >= (2, 9),
        "2.6",
        "torch.cond does not run under a dispatch mode, so that its refusal is two problems",
    ),
    "exported_descriptors": Feature(
        RELEASE >= (2, 13),
        "2.9",
        "strict torch.export.export follows no descriptor of ours, and nn.Module finds children",
    ),
    "fp32_precision": Feature(
        hasattr(torch._C, "_get_fp32_precision_getter"),
        "2.6",
        "the precision of float32 is set for all operations, and not for each backend",
    ),
    "grouped_mm": Feature(
        hasattr(nn.functional, "grouped_mm"),
        "2.9",
        "nn.functional has no grouped_mm, scaled_mm and scaled_grouped_mm",
    ),
    "linear_cross_entropy": Feature(
        hasattr(nn, "LinearCrossEntropyLoss"),
        "2.9",
        "nn.LinearCrossEntropyLoss and its function do not exist",
    ),
    "nextafter_derivative": Feature(
        RELEASE >= (2, 13),
        "2.9",
        "torch.nextafter has no derivative",
    ),
    "norm_bias": Feature(
        "bias" in signature(nn.GroupNorm).parameters,
        "2.9",
        "batch, instance and group norms take no bias=False",
    ),
    "sizes_by_index": Feature(
        RELEASE >= (2, 9),
        "2.6",
        "a tuple of sizes takes no objects that are numbers by __index__ alone",
    ),
    "symbolic_sym_sum": Feature(
        RELEASE >= (2, 9),
        "2.6",
        "torch.sym_sum iterates over its argument, which a symbol refuses",
    ),
}


NEWER_LAYERS = {"linearcrossentropyloss": "linear_cross_entropy"}
"""The types of layers that older releases lack, and the feature that each one needs."""


def has(feature: str) -> bool:
    """Return whether this torch has a feature, by its name in :data:`FEATURES`."""
    return FEATURES[feature].is_here


def missing(feature: str) -> str | None:
    """Return why code that needs a feature does not run on this torch; None if it runs."""
    is_here, _, without = FEATURES[feature]
    return None if is_here else f"in torch {torch.__version__}, {without}"


def default_device() -> torch.device:
    """Return the device on which torch makes tensors.

    Up to torch 2.9, ``torch.get_default_device`` fails after ``set_default_device(None)``, and that
    of torch 2.6 does not see ``with torch.device(…)``.
    """
    return torch.empty(0).device


def note_modes(are_on: bool) -> None:
    """Tell Dynamo's guards whether dispatch modes are on, on releases that store it there."""
    if _note_modes is not None:
        _note_modes(are_on)


_note_modes = getattr(guards, "set_is_in_mode_without_ignore_compile_internals", None)


def uncompiled_scans() -> Iterator[tuple[Any, str, Any]]:
    """Yield the patches with which scans do not compile themselves, on releases that need them."""
    if RELEASE < (2, 9):
        yield torch._dynamo, "is_compiling", lambda: True


def note_structure(cls: type, take_apart: Callable[[Any], tuple[list[Any], Any]]) -> None:
    """Tell torch.fx of a class that pytree knows, on releases where it has a table of its own.

    Args:
        cls: a class of arguments of exported programs.
        take_apart: the function that pytree calls; it returns the children and the context.
    """
    if RELEASE >= (2, 9):
        return

    def children(value: Any, spec: TreeSpec) -> list[Any]:
        found, context = take_apart(value)
        if context != spec.context:
            raise RuntimeError(f"the program takes a {spec.context}, and not a {context}")
        return found

    register_pytree_flatten_spec(cls, children)


def python_code(
    source: str, names: dict[str, Any], nodes_of_lines: dict[int, int | None]
) -> PythonCode:
    """Return the code of a graph in the class of torch.fx, whose fields differ.

    Args:
        source: the text; it begins with the first line of the function.
        names: the globals of the function.
        nodes_of_lines: by line, the number of the node that the line computes.
    """
    given: dict[str, Any] = {
        "src": source,
        "globals": names,
        "_lineno_map": nodes_of_lines,
        "_prologue_start": 1,  # the line where the function begins; torch 2.9 lacks it
    }
    known = {field.name for field in fields(PythonCode)}
    return PythonCode(**{name: value for name, value in given.items() if name in known})
