"""The members of a module: children and tensors, as statements of its constructor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from layergraph.errors import Place
from layergraph.ir import MODULE, Implementation, Ir, TensorSpec
from layergraph.tensors.state import dtype_of, from_spec
from layergraph_source.context import Context
from layergraph_source.layers import LayerWriter
from layergraph_source.literals import UnspeakableError, quoted
from layergraph_source.paths import is_attribute
from layergraph_source.templates import Argument, Hole, Template
from layergraph_source.tree import Tree

_CONTAINERS = {
    "sequential": nn.Sequential,
    "modulelist": nn.ModuleList,
    "moduledict": nn.ModuleDict,
    "parameterlist": nn.ParameterList,
    "parameterdict": nn.ParameterDict,
}


@dataclass(frozen=True, slots=True)
class Made:
    """A class that has been written, and the arguments for an implementation of it.

    Attributes:
        name: the name of the class.
        arguments: by parameter, the expression.
    """

    name: str
    arguments: Mapping[str, str]


class MemberWriter:
    """Writes the members of modules.

    Args:
        ir: the IR.
        tree: the built modules.
        context: the names of the module.
        layers: writes calls of constructors.
        made: for each composite below, its class.
    """

    def __init__(
        self,
        ir: Ir,
        tree: Tree,
        context: Context,
        layers: LayerWriter,
        made: Mapping[str, Made],
    ) -> None:
        self._ir = ir
        self._tree = tree
        self._context = context
        self._layers = layers
        self._made = made
        self._opened: set[str] = set()

    def statements(self, implementation: Implementation) -> list[Template]:
        """Return the statements that make the children and tensors of a composite."""
        found: list[Template] = []
        self._opened = set()
        for name, target in (implementation.children or {}).items():
            found += self._child(implementation, name, target)
        for name, spec in implementation.tensors.items():
            place = Place("implementation", implementation.name).at("tensor", name)
            if "." not in name:
                found.append(self._tensor(name, spec, place))
        return found

    def _child(self, parent: Implementation, name: str, target: str) -> list[Template]:
        *way, last = name.split(".")
        owner, before = "self", []
        for each in way:
            if not is_attribute(each):
                self._refuse(parent.name, f"{each!r} cannot be the name of a child")
            owner = f"{owner}.{each}"
            line = f"{owner} = {self._context.nn}.Module()"
            if line not in self._opened:
                self._opened.add(line)
                before.append((line,))
        is_first = self._tree.is_first(parent.name, name)
        value = self.expression(target) if is_first else ("None",)
        if is_first and is_attribute(last):
            return [*before, (f"{owner}.{last} = ", *value)]
        return [*before, (f"{owner}.register_module({quoted(last)}, ", *value, ")")]

    def expression(self, name: str) -> Template:
        """Return the expression that makes an implementation."""
        implementation = self._ir[name]
        try:
            return self._expression(implementation)
        except UnspeakableError as error:
            self._refuse(name, str(error))
            return ("None",)

    def _expression(self, implementation: Implementation) -> Template:
        name = implementation.name
        if implementation.type == MODULE:
            made = self._made[name]
            owner = name.rpartition(".")[2]
            arguments = [
                Argument("", (Hole(parameter, owner, text),))
                for parameter, text in made.arguments.items()
            ]
            return (f"{made.name}(", *arguments, ")")
        module = self._tree.modules[name]
        cls = _CONTAINERS.get(implementation.type)
        if cls is not None and type(module) is cls:
            return self._container(implementation, module)
        if implementation.children:
            raise UnspeakableError(
                f"a {type(module).__qualname__} that holds other layers has no expression"
            )
        return self._layers.template(implementation, module, self._tree.dtype(name))

    def _container(self, implementation: Implementation, module: nn.Module) -> Template:
        kind = f"{self._context.nn}.{type(module).__name__}"
        if isinstance(module, nn.ParameterList | nn.ParameterDict):
            return self._parameters(implementation, kind)
        children = implementation.children or {}
        items: dict[str, Template] = {
            name: self.expression(target)
            if self._tree.is_first(implementation.name, name)
            else ("None",)
            for name, target in children.items()
        }
        is_numbered = [*items] == [str(number) for number in range(len(items))]
        if not items:
            return (f"{kind}()",)
        if is_numbered and isinstance(module, nn.Sequential):
            return (f"{kind}(", *self._listed([*items.values()]), ")")
        if is_numbered and isinstance(module, nn.ModuleList):
            runs = _runs([*items.values()])
            if len(runs) == 1 and runs[0][1] > 1:
                item, count = runs[0]
                loop = f" for _ in {self._context.builtin('range')}({count})])"
                return (f"{kind}([", *item, loop)
            return (f"{kind}([", *self._listed([*items.values()]), "])")
        if any("." in name or not name or hasattr(nn.Module, name) for name in items):
            raise UnspeakableError("a child has a name that torch does not take")
        pairs = [Argument(f"{quoted(name)}: ", value) for name, value in items.items()]
        if isinstance(module, nn.ModuleDict):
            return (f"{kind}({{", *pairs, "})")
        if isinstance(module, nn.Sequential):
            ordered = f"{self._context.library('collections')}.OrderedDict"
            return (f"{kind}({ordered}({{", *pairs, "}))")
        return (f"{self._context.helper('_filled')}({kind}(), {{", *pairs, "})")

    def _listed(self, items: list[Template]) -> list[Argument]:
        found = []
        for item, count in _runs(items):
            if count == 1:
                found.append(Argument("", item))
                continue
            loop = f" for _ in {self._context.builtin('range')}({count})]"
            found.append(Argument("*[", (*item, loop)))
        return found

    def _parameters(self, implementation: Implementation, kind: str) -> Template:
        items = []
        for name, spec in implementation.tensors.items():
            place = Place("implementation", implementation.name).at("tensor", name)
            prefix = f"{quoted(name)}: " if kind.endswith("Dict") else ""
            items.append(Argument(prefix, self._parameter(name, spec, place)))
        opened, closed = ("({", "})") if kind.endswith("Dict") else ("([", "])")
        return (f"{kind}{opened}", *items, closed)

    def _parameter(self, name: str, spec: TensorSpec, place: Place) -> Template:
        nn_name = self._context.nn
        return (f"{nn_name}.Parameter(", *self._value(name, spec, place), ")")

    def _value(self, name: str, spec: TensorSpec, place: Place) -> Template:
        """Return the expression of a new tensor."""
        torch = self._context.torch
        if spec.value is not None:
            tensor = from_spec(spec, place, self._tree.device)
            return (Hole(name, name, self._context.tensor(tensor.detach(), place)),)
        dtype = dtype_of(spec, place)
        said = "" if spec.dtype is None else f", dtype={self._context.value(dtype)}"
        sizes: list[str | Hole | Argument] = [
            Argument("", (Hole(f"{name}_size_{at}", name, str(size)),))
            for at, size in enumerate(spec.shape or ())
        ]
        return (f"{torch}.zeros(", *(sizes or ["()"]), f"{said})")

    def _tensor(self, name: str, spec: TensorSpec, place: Place) -> Template:
        if spec.kind == "parameter":
            value = self._parameter(name, spec, place)
            if is_attribute(name):
                return (f"self.{name} = ", *value)
            return (f"self.register_parameter({quoted(name)}, ", *value, ")")
        persistent = spec.kind == "buffer" and spec.persistent is not False
        value = self._value(name, spec, place)
        end = ")" if persistent else ", persistent=False)"
        return (f"self.register_buffer({quoted(name)}, ", *value, end)

    def _refuse(self, name: str, message: str) -> None:
        self._context.problems.add(
            Place("implementation", name), message, "replace it by a layer of torch, or trace it"
        )


def _runs(items: list[Template]) -> list[tuple[Template, int]]:
    """Return runs of equal items, each item once with its count."""
    found: list[tuple[Template, int]] = []
    for item in items:
        if found and found[-1][0] == item and item != ("None",):
            found[-1] = item, found[-1][1] + 1
        else:
            found.append((item, 1))
    return found
