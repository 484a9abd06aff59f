"""The names of a written module: imports, copies and definitions other than classes."""

from __future__ import annotations

import base64
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import torch

from layergraph import known_objects, outputs
from layergraph.errors import Place
from layergraph.functions import checked
from layergraph.ir import Ir, Namer, Record, Value
from layergraph.ir.names import is_argument_name
from layergraph.ir.values import parts
from layergraph.known_objects import maker_of
from layergraph.literals import OUTPUT_CLASS, UnknownValueError, class_of_torch, output_of
from layergraph_source import runtime
from layergraph_source.errors import Problems
from layergraph_source.helpers import FUTURE, Helpers
from layergraph_source.literals import UnspeakableError, displayed_tuple, expression, quoted

_LARGEST_DATA = 8 * 2**20
_CHUNK = 88
_SMALL = 16
_COPIED = [
    name
    for name, each in vars(runtime).items()
    if getattr(each, "__module__", "") == runtime.__name__
]


class Context:
    """The names at the top of a written module.

    Args:
        ir: the IR.

    Attributes:
        problems: the problems found so far.
        helpers: the functions that are copied into the module.
        torch, nn, functional: the names of torch, torch.nn and torch.nn.functional.
    """

    def __init__(self, ir: Ir) -> None:
        self.problems = Problems()
        self.helpers = Helpers()
        self.parameters = frozenset(_parameters(ir))
        # No parameter of a method may hide a name of the module: callers pass arguments by name.
        self._namer = Namer({*self.parameters, "self", *_COPIED})
        self.torch = self._namer.name("torch")
        self.nn = self._namer.name("nn")
        self.functional = self._namer.name("F")
        self._builtins: str | None = None
        self._libraries: dict[str, str] = {}
        self._records: dict[tuple[str, tuple[str, ...]], str] = {}
        self._outputs: dict[str, str] = {}
        self._data: dict[bytes, str] = {}
        self._data_texts: dict[str, str] = {}

    def class_name(self, wish: str) -> str:
        """Return an unused name for a class."""
        return self._namer.name(wish)

    def taken(self) -> set[str]:
        """Return the names of the module that no variable may have."""
        own = {self.torch, self.nn, self.functional, *self._libraries.values()}
        return own | {*self._namer._taken} | {*self.helpers.names}

    def builtin(self, name: str) -> str:
        """Return the expression of a builtin function."""
        if name not in self.parameters:
            return name
        if self._builtins is None:
            self._builtins = self._namer.name("builtins")
        return f"{self._builtins}.{name}"

    def helper(self, name: str, module: ModuleType = runtime) -> str:
        """Copy a function into the module, and return its name."""
        return self.helpers.add(module, name)

    def library(self, module: str) -> str:
        """Import a module of another library, and return its expression."""
        root, _, rest = module.partition(".")
        known = next((name for each, name in self._libraries.items() if _root(each) == root), None)
        if known is None:
            known = root if root not in self.parameters else self._namer.name(root)
        self._libraries[module] = known
        return f"{known}.{rest}" if rest else known

    def record(self, record: Record) -> str:
        """Return the expression of the class of a named tuple."""
        key = record.type, tuple(record.fields)
        if key not in self._records:
            for name in (record.type, *record.fields):
                if not is_argument_name(name) or (name.startswith("_") and name != record.type):
                    raise UnspeakableError(f"{name!r} cannot be a name of a named tuple")
            self._records[key] = self._namer.name(record.type)
            self.library("typing")
        return self._records[key]

    def output(self, record: Record) -> str:
        """Return the name of the class of the outputs that a record stands for.

        Raises:
            UnspeakableError: it cannot be defined.
        """
        name = record.type.removeprefix(OUTPUT_CLASS)
        said = [(key, value if _is_fact(key) else None) for key, value in record.fields.items()]
        try:
            output_of(record, tuple(record.fields.values()))
        except UnknownValueError as error:
            raise UnspeakableError(str(error)) from None
        made = self.helper("output_class", outputs)
        text = f"{made}({', '.join([quoted(name), *map(self.value, said)])})"
        if text not in self._outputs:
            self._outputs[text] = self._namer.name(name)
        return self._outputs[text]

    def value(self, value: Value, leaf: Callable[[Any], str | None] = lambda _: None) -> str:
        """Return an expression for a value.

        Raises:
            UnspeakableError: no expression exists.
        """

        def names(each: Any) -> str | None:
            known = leaf(each)
            return self._record_value(each, leaf) if known is None else known

        return expression(value, names, self.builtin, self.torch)

    def _record_value(self, value: Any, leaf: Callable[[Any], str | None]) -> str | None:
        if type(value) is not Record:
            return None
        items = [self.value(each, leaf) for each in value.fields.values()]
        if value.type == "PackedSequence":
            made = self.helper("packed_sequence", checked)
            return f"{made}({', '.join(items)})"
        if value.type.startswith(OUTPUT_CLASS):
            named = zip(value.fields, items, strict=True)
            fields = [f"{quoted(key)}: {item}" for key, item in named if not _is_fact(key)]
            return f"{self.output(value)}({{{', '.join(fields)}}})"
        known = maker_of(value.type, value.fields)
        if known is not None:
            first = map(self._known, known[1])
            return f"{self._known(known[0])}({', '.join([*first, *items])})"
        of_torch = class_of_torch(value)
        if of_torch is torch.Size:
            return f"{self.torch}.Size({displayed_tuple(items)})"
        if of_torch is not None:
            return f"{self.torch}.return_types.{of_torch.__name__}({displayed_tuple(items)})"
        return f"{self.record(value)}({', '.join(items)})"

    def tensor(self, tensor: torch.Tensor, place: Place) -> str:
        """Return an expression for a tensor of the IR: a short literal, or its bytes."""
        dtype = f"{self.torch}.{str(tensor.dtype).removeprefix('torch.')}"
        contiguous = tensor.contiguous()
        if tensor.numel() <= _SMALL and not tensor.is_quantized:
            text = self._literal(contiguous, dtype)
            if text is not None:
                return text
        raw = bytes(contiguous.reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""
        shape = displayed_tuple([str(size) for size in tensor.shape])
        decoded = self.helper("_decoded")
        return f"{decoded}({self._stored(raw, place)}, {dtype}, {shape})"

    def _literal(self, tensor: torch.Tensor, dtype: str) -> str | None:
        numbers = tensor.tolist()
        try:
            again = torch.tensor(numbers, dtype=tensor.dtype)
        except (RuntimeError, TypeError):
            return None
        if again.shape != tensor.shape or _bytes(again) != _bytes(tensor):
            return None
        return f"{self.torch}.tensor({self.value(numbers)}, dtype={dtype})"

    def _stored(self, raw: bytes, place: Place) -> str:
        if raw not in self._data:
            packed = base64.b85encode(zlib.compress(raw, 9)).decode("ascii")
            if len(packed) > _LARGEST_DATA:
                self.problems.add(
                    place,
                    f"its value takes {len(packed):,} characters of source",
                    "register it as a buffer of the state dict",
                )
                packed = ""
            name = self._namer.name(f"DATA_{len(self._data) + 1}")
            self._data[raw] = name
            self._data_texts[name] = packed
        return self._data[raw]

    def prepare_record(self, record: Record) -> None:
        """Define the class of a named tuple, unless it is one of torch.

        Raises:
            UnspeakableError: it cannot be defined.
        """
        if record.type == "PackedSequence":
            self.helper("packed_sequence", checked)
            return
        if record.type.startswith(OUTPUT_CLASS):
            self.output(record)
            return
        try:
            is_of_torch = class_of_torch(record) is not None
            known = maker_of(record.type, record.fields)
        except (UnknownValueError, ValueError) as error:
            raise UnspeakableError(f"there is no {error}") from None
        if known is not None:
            for each in (known[0], *known[1]):
                self._known(each)
        elif not is_of_torch:
            self.record(record)

    def _known(self, value: Any) -> str:
        """Return the expression of a function or class that makes objects, or of its names."""
        home = getattr(value, "__module__", "")
        if not callable(value):
            return self.value(value)
        if home == known_objects.__name__:
            return self.helper(value.__name__, known_objects)
        if home == "builtins":
            return self.builtin(value.__name__)
        return f"{self.torch if home == 'torch' else self.library(home)}.{value.__name__}"

    def used_imports(self, text: str) -> list[str]:
        """Return the import lines for the names in a text, in the order of formatters."""
        words = {*re.findall(r"\w+", text)}
        plain = {*self.helpers.imports}
        for module, name in self._libraries.items():
            is_root = name == _root(module)
            plain.add(f"import {module}" if is_root else f"import {_root(module)} as {name}")
            if not is_root and "." in module:
                plain.add(f"import {module}")
        plain |= {
            line
            for line, name in (
                ("import builtins", self._builtins or ""),
                ("import torch", self.torch),
                ("import torch.nn.functional", self.functional),
                ("from torch import nn", self.nn),
            )
            if name in words
            for line in [_as(line, line.rpartition(" ")[2], name)]
        }
        return _sorted(plain)

    def definitions(self) -> list[str]:
        """Return the definitions other than classes: copies, named tuples and data."""
        found = self.helpers.texts()
        typing = self._libraries.get("typing", "typing")
        for (_, fields), name in self._records.items():
            lines = [f"    {field}: {typing}.Any" for field in fields] or ["    pass"]
            found.append("\n".join([f"class {name}({typing}.NamedTuple):", *lines]))
        found += [f"{name} = {text}" for text, name in self._outputs.items()]
        for name, packed in self._data_texts.items():
            chunks = [packed[at : at + _CHUNK] for at in range(0, len(packed), _CHUNK)] or [""]
            lines = [f"    {quoted(chunk)}" for chunk in chunks]
            found.append(
                "\n".join([f"{name} = (", *lines, ")"])
                if len(chunks) > 1
                else f"{name} = {quoted(packed)}"
            )
        return found


def _is_fact(name: str) -> bool:
    return name.startswith(outputs.ATTRIBUTE)


def _bytes(tensor: torch.Tensor) -> list[int]:
    return tensor.reshape(-1).view(torch.uint8).tolist() if tensor.numel() else []


def _as(line: str, plain: str, name: str) -> str:
    return line if name == plain else f"{line} as {name}"


def _sorted(lines: Iterable[str]) -> list[str]:
    """Return import lines in groups: that of annotations, the standard library, then the rest."""
    groups: tuple[list[str], ...] = ([], [], [])
    for line in sorted(lines, key=lambda each: (each.startswith("from"), each)):
        root = re.split(r"[ .]", line)[1]
        groups[0 if line == FUTURE else 1 if root in sys.stdlib_module_names else 2].append(line)
    texts = ["\n".join(each) for each in groups if each]
    return "\n\n".join(texts).splitlines()


def _root(module: str) -> str:
    return module.partition(".")[0]


def _parameters(ir: Ir) -> Iterator[str]:
    for implementation in ir.values():
        for graph in implementation.graphs:
            yield from graph.parameters().values()


def records(*values: Value) -> Iterator[Record]:
    """Yield the named tuples inside values."""
    for value in values:
        if type(value) is Record:
            yield value
        yield from records(*(parts(value) or ()))
