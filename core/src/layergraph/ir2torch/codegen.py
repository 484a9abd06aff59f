"""Writing the Python code of a graph of torch.fx.

torch.fx writes the ``repr`` of each constant into code that it executes, so that an edited graph
could run any code. The code of this module contains only plain literals, names that this module
makes, and paths in torch that lead to the very object. For any other object, the code has a name,
and the globals of the code hold the object.
"""

from __future__ import annotations

import builtins
import keyword
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.graph import inplace_methods, magic_methods

from layergraph.control_flow.choices import called
from layergraph.control_flow.regions import REGIONS
from layergraph.errors import BuildError
from layergraph.functions.foreign import applied_class
from layergraph.ir.graph import KEYWORD_ONLY
from layergraph.ir.names import Namer
from layergraph.literals import NAMED

_INDENT = "    "
# TorchScript has no literal for larger integers, and Python takes long to print and parse them.
_LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class GeneratedCode:
    """The code of a graph, for :func:`layergraph.ir2torch.code_check.compiled_forward`.

    Attributes:
        source: the source text, which defines a function ``forward``.
        globals: the objects that the source names, except parameters and variables.
        attributes: the names of all attributes that the source reads.
        nodes_of_lines: for each line, the number of the node that it computes.
    """

    source: str
    globals: dict[str, Any]
    attributes: frozenset[str]
    nodes_of_lines: dict[int, int | None]


def generated_code(graph: fx.Graph) -> GeneratedCode:
    """Return the code that runs a graph as the method of a module."""
    return _Writer(graph).write()


class _Writer:
    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        parameters = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
        # Callers pass arguments by these names, so that no other name may equal one of them.
        self._parameters = frozenset(name.lstrip("*") for name in parameters)
        self._namer = Namer(self._parameters)
        self._module = self._namer.name("self")
        self._globals: dict[str, Any] = {}
        self._bound: dict[int, str] = {}
        self._attributes: set[str] = set()
        self._variables: dict[fx.Node, str] = {}
        self._signature: list[str] = []
        self._by_name: list[str] = []
        self._returns = ""

    def write(self) -> GeneratedCode:
        dead = self._last_uses()
        numbered: list[tuple[str, int | None]] = [
            (f"{line}\n", number)
            for number, node in enumerate(self._graph.nodes)
            for line in self._lines(node, dead.get(node, ()))
        ] or [("pass\n", None)]
        by_name = ["*", *self._by_name] if self._by_name else []
        signature = ", ".join([self._module, *self._signature, *by_name])
        head = f"def forward({signature}){self._returns}:\n"
        heads, indent = [head], _INDENT
        if any(
            node.op == "call_function" and called(node.target, node.args) in REGIONS
            for node in self._graph.nodes
        ):
            self._attributes.add("_ending_regions")
            heads.append(f"{_INDENT}with {self._module}._ending_regions():\n")
            indent *= 2
        source = "".join([*heads, *[f"{indent}{line}" for line, _ in numbered]])
        nodes = {len(heads) + 1 + index: number for index, (_, number) in enumerate(numbered)}
        return GeneratedCode(source, self._globals, frozenset(self._attributes), nodes)

    def _last_uses(self) -> dict[fx.Node, list[fx.Node]]:
        """Return, for each node, the nodes whose values it is the last to use."""
        seen: set[fx.Node] = set()
        last: dict[fx.Node, list[fx.Node]] = {}
        for node in reversed(self._graph.nodes):
            unseen = [each for each in node.all_input_nodes if each not in seen]
            if not node.users and node.op != "placeholder":
                unseen.append(node)
            seen.update(unseen)
            last[node] = unseen
        return last

    def _lines(self, node: fx.Node, dead: Sequence[fx.Node]) -> list[str]:
        if node.op == "placeholder":
            self._parameter(node)
            return []
        if node.op == "output":
            self._returns = "" if node.type is None else f" -> {self._object(node.type)}"
            return [f"return {self._value(node.args[0])}"]
        lines = self._computing(node)
        name = self._variables[node]
        if node.type is not None:
            lines[0] = f"{name} : {self._object(node.type)}{lines[0].removeprefix(name)}"
        if dead:
            lines[-1] += f";  {' = '.join([*[self._variables[each] for each in dead], 'None'])}"
        return lines

    def _parameter(self, node: fx.Node) -> None:
        target = str(node.target)
        self._variables[node] = target.lstrip("*")
        annotation = "" if node.type is None else f" : {self._object(node.type)}"
        default = f" = {self._value(node.args[0])}" if node.args else ""
        parameters = self._by_name if KEYWORD_ONLY in node.meta else self._signature
        parameters.append(f"{target}{annotation}{default}")

    def _computing(self, node: fx.Node) -> list[str]:
        """Return the lines that assign the value of a node to its variable."""
        args = [self._value(arg) for arg in node.args]
        given = [*args, *[f"{name} = {self._value(arg)}" for name, arg in node.kwargs.items()]]
        name = self._variables[node] = self._namer.name(node.name)
        target: Any = node.target
        if node.op == "call_method":
            method = self._path(_owner(args[0]), target)
            return [f"{name} = {method}({', '.join(given[1:])})"]
        if node.op != "call_function":
            path = self._path(self._module, target)
            return [f"{name} = {path}" if node.op == "get_attr" else _call(name, path, given)]
        if target is getattr and len(given) == 2 and _is_spellable(node.args[1]):
            return [f"{name} = {self._path(_owner(args[0]), str(node.args[1]))}"]
        if target is getattr and len(args) > 1 and isinstance(node.args[1], str):
            self._attributes.add(node.args[1])
        # torch.jit.script takes x + y, and not operator.add(x, y).
        kind = _OPERATORS.get(target) if isinstance(target, _BUILTIN) else None
        if kind is None:
            return [_call(name, self._object(target), given)]
        if len(args) != kind.count("{}") or node.kwargs:
            raise BuildError(f"{node.name!r}: operator.{target.__name__} has other operands")
        if target is operator.setitem:
            return [
                kind.format(_operand(args[0]), self._index(node.args[1]), args[2]),
                f"{name} = None",
            ]
        if target is operator.getitem:
            return [f"{name} = {kind.format(_operand(args[0]), self._index(node.args[1]))}"]
        if target.__name__ in inplace_methods:
            # `x += 1` rebinds x if x is a number. So assign it to another variable first.
            return [f"{name} = {args[0]}", kind.format(name, args[1])]
        return [f"{name} = {kind.format(*map(_operand, args))}"]

    def _index(self, index: Any) -> str:
        """Return the text between the brackets of a subscript."""
        if type(index) is tuple and index:
            return ", ".join(map(self._slice, index)) + "," * (len(index) == 1)
        return self._slice(index)

    def _slice(self, index: Any) -> str:
        if type(index) is not slice:
            return self._value(index)
        parts = (index.start, index.stop, index.step)
        start, stop, step = ["" if part is None else self._value(part) for part in parts]
        return f"{start}:{stop}" + (f":{step}" if step else "")

    # --- values ---

    def _value(self, value: Any) -> str:
        """Return an expression for a value."""
        if isinstance(value, fx.Node):
            return self._variables[value]
        kind = type(value)
        if kind in _LITERAL or (kind is int and -_LARGEST <= value < _LARGEST):
            return "..." if value is ... else ascii(value)
        if kind is float:
            number = ascii(value)
            return number if math.isfinite(value) else f"{self._object(float)}('{number}')"
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, list):
            return f"[{self._values(value)}]"
        if isinstance(value, dict):
            items = [f"{self._value(key)}: {self._value(item)}" for key, item in value.items()]
            return f"{{{', '.join(items)}}}"
        if kind is slice:
            return f"{self._object(slice)}({self._values((value.start, value.stop, value.step))})"
        if kind is torch.device:
            return f"{self._object(torch.device)}({str(value)!a})"
        return self._object(value)

    def _values(self, values: Iterable[Any]) -> str:
        return ", ".join([self._value(value) for value in values])

    def _tuple(self, value: tuple[Any, ...]) -> str:
        items = self._values(value)
        if type(value) is not tuple and hasattr(value, "_fields"):
            return f"{self._object(type(value))}({items})"
        display = f"({items},)" if len(value) == 1 else f"({items})"
        return display if type(value) is tuple else f"{self._object(type(value))}({display})"

    def _object(self, value: Any) -> str:
        """Return an expression for an object: a path in torch, or a name among the globals."""
        path = _path_in_torch(value)
        if path is not None:
            return self._path(self._bind(torch, "torch"), path)
        return self._bind(value, _hint(value))

    def _bind(self, value: Any, hint: str) -> str:
        name = self._bound.get(id(value))
        if name is None:
            is_builtin = vars(builtins).get(hint) is value and hint not in self._parameters
            name = hint if is_builtin else self._namer.name(hint)
            self._bound[id(value)] = name
            self._globals[name] = value
        return name

    def _path(self, owner: str, path: str) -> str:
        """Return an expression that reads a path of attributes."""
        for name in path.split("."):
            self._attributes.add(name)
            if _is_spellable(name):
                owner = f"{owner}.{name}"
            else:
                owner = f"{self._bind(getattr, 'getattr')}({owner}, {name!a})"
        return owner


_LITERAL = frozenset({type(None), bool, str, bytes, type(...)})
_BUILTIN = type(operator.add)
_OPERATORS: dict[Callable[..., Any], str] = {
    getattr(operator, name): form
    for name, form in {**magic_methods, **inplace_methods}.items()
    if hasattr(operator, name)
}


def _call(name: str, called: str, given: list[str]) -> str:
    return f"{name} = {called}({', '.join(given)})"


def _operand(text: str) -> str:
    """Return an expression for use beside an operator: ``-2 ** x`` is ``-(2 ** x)``."""
    return f"({text})" if text.startswith("-") else text


def _owner(text: str) -> str:
    """Return an expression for use before a dot: ``1.real`` is a syntax error."""
    return text if text.isidentifier() else f"({text})"


def _is_spellable(name: object) -> bool:
    # Python normalises names that are not ASCII, so that the attribute may have another name.
    return (
        isinstance(name, str)
        and name.isascii()
        and name.isidentifier()
        and not keyword.iskeyword(name)
    )


_paths: dict[Any, str] = {}


def _path_in_torch(value: Any) -> str | None:
    """Return the path in torch that leads to an object; None if there is none."""
    if isinstance(value, NAMED):
        return _resolved(value, [str(value).removeprefix("torch.")])
    if not callable(value):
        return None
    try:
        known = _paths.get(value)
    except TypeError:  # the object is not hashable
        return None
    if known is not None:
        return known
    path = _resolved(value, _candidates(value))
    # The cache keeps only objects that torch keeps alive anyway.
    if path is not None:
        _paths[value] = path
    return path


def _candidates(function: Any) -> list[str]:
    if isinstance(function, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return [f"ops.{function}"]
    name, module = getattr(function, "__name__", None), getattr(function, "__module__", None)
    if not isinstance(name, str):
        return []
    if isinstance(module, str) and module.partition(".")[0] == "torch":
        qualified = getattr(function, "__qualname__", name)
        inside = module.partition(".")[2]
        return [f"{inside}.{qualified}" if inside else qualified, name, f"nn.functional.{name}"]
    if module is None or module == "builtins":
        return [name, f"nn.functional.{name}", f"Tensor.{name}"]
    return []


def _resolved(value: object, paths: Iterable[str]) -> str | None:
    for path in paths:
        found: Any = torch
        for name in path.split("."):
            # getattr(torch, name) may import a submodule; vars() does not.
            found = vars(found).get(name) if found is torch else getattr(found, name, None)
        if found is value:
            return path
    return None


def _hint(value: Any) -> str:
    """Return a readable name for an object."""
    applied = applied_class(value)
    if applied is not None:
        return f"{applied.__name__}_apply"
    name = getattr(value, "__name__", None)
    if not isinstance(name, str):
        return f"_{type(value).__name__}"
    module = getattr(value, "__module__", None)
    if module == "builtins" or not isinstance(module, str):
        return name
    return f"{module}_{name}"
