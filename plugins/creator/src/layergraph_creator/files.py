"""Write and read files of the IR of elasticai-creator: JSON in the format of its serializer.

The file is a dict of ``root``, an implementation, and ``registry``, the others by name. Each has
``nodes`` by name, ``edges`` as ``{src: {dst: attributes}}``, and ``attributes``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from layergraph.errors import ArgumentError, FileError, InvalidIrError
from layergraph.ir import Ir
from layergraph_creator.exchange import forms_of, from_creator
from layergraph_files.atomic import writing
from layergraph_files.bounds import check_bounds, check_paths
from layergraph_files.limits import DEFAULT_LIMITS, Limits
from layergraph_files.parse_errors import reading
from layergraph_files.paths import open_file, to_path
from layergraph_files.text import parse, whole

SUFFIX = ".creator.json"


def save(ir: Ir, path: Any, state_dict: Mapping[str, Any] | None = None) -> None:
    """Write an IR to a file.

    Raises:
        ArgumentError: their IR cannot describe a node, or you pass a state dict, which it lacks.
        FileError: the file cannot be written.
    """
    target = to_path(path, "save(ir, path)")
    if state_dict is not None:
        raise ArgumentError(f"{SUFFIX} holds no weights; save them by themselves, with torch.save")
    forms = forms_of(ir)
    made = {name: _serialized(form) for name, form in forms.items()}
    document = {"root": made.pop(ir.root), "registry": made}
    _refuse_no_json(forms)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    with writing(target, lambda *_: ()) as written, written.file(target.name) as file:
        file.write(text.encode())


def _refuse_no_json(forms: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise an error that lists the values that JSON cannot represent, such as infinity."""
    problems = []
    for name, form in forms.items():
        for key, value in form.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                problems.append(f"  implementation {name!r}: {key}={value!r:.80}: {error}")
    if problems:
        raise ArgumentError("\n".join(["JSON cannot represent these values:", *problems]))


def _serialized(form: dict[str, Any]) -> dict[str, Any]:
    attributes = {key: each for key, each in form.items() if key not in ("nodes", "edges")}
    return {"nodes": form["nodes"], "edges": form["edges"], "attributes": attributes}


def load(path: Any, *, limits: Limits = DEFAULT_LIMITS) -> Ir:
    """Read the IR in a file.

    Raises:
        FileError: the file is damaged, or has no IR of elasticai-creator.
        InvalidIrError: the IR breaks a rule.
    """
    found = to_path(path, "load(path)")
    with reading(found):
        with open_file(found) as file:
            form = parse(whole(file, limits))
        if not isinstance(form, dict) or not {"root", "registry"} <= form.keys():
            raise FileError(f"{str(path)!r}: the file is not a dict with 'root' and 'registry'")
        try:
            ir = from_creator(_tuples(form["root"]), _tuples(form["registry"]))
        except InvalidIrError:
            raise
        except ArgumentError as error:
            raise FileError(f"{str(path)!r}: {error}") from None
        check_bounds(ir)
        check_paths(ir, limits)
    return ir


def _tuples(value: Any) -> Any:
    """Return a JSON value with tuples instead of lists, because layers of torch expect tuples."""
    if isinstance(value, list):
        return tuple(_tuples(each) for each in value)
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return value
