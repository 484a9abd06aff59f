"""The whole module: imports, definitions and classes."""

from __future__ import annotations

from torch import nn

from layergraph.errors import ArgumentError, Place
from layergraph.functions.names import Targets
from layergraph.ir import FUNCTION, MODULE, STATE, Implementation, Ir, Namer, check
from layergraph.ir.bodies import owned
from layergraph.ir.names import is_argument_name
from layergraph.ir.submodules import Ancestry
from layergraph.ir2torch import get_default_converter
from layergraph.ir2torch.paths import find_module
from layergraph.ir2torch.submodules import owner_of
from layergraph.tensors.kinds import refuse_packed
from layergraph_source.classes import ClassWriter, Composite
from layergraph_source.context import Context, records
from layergraph_source.finishing import Finishing
from layergraph_source.functions import FunctionWriter
from layergraph_source.layers import LayerWriter
from layergraph_source.layout import INDENT, laid_out
from layergraph_source.literals import UnspeakableError, displayed_tuple, quoted
from layergraph_source.members import MemberWriter
from layergraph_source.methods import MethodWriter
from layergraph_source.paths import reading
from layergraph_source.steps import Step
from layergraph_source.templates import holes, rendered
from layergraph_source.tree import Tree

_INHERITED = "forward train eval training extra_repr".split()


def to_source(ir: Ir, class_name: str = "Net") -> str:
    """Return the source of a Python module that defines the model.

    The module imports torch, and the libraries whose layers or functions the model has. It does not
    import layergraph. ``Net()`` makes the model: its ``state_dict()`` has the keys of the original,
    and with the original's weights it returns the same bits. Blocks with equal graphs share a
    class, whose parameters are the differing attributes.

    Args:
        ir: the IR.
        class_name: the name of the class of the model. For a model that is a single layer or a
            container of torch, it is the name of a function that makes it.

    Returns:
        The source, which is the same for the same IR.

    Raises:
        ArgumentError: the name cannot be that of a class.
        InvalidIrError: the IR breaks a rule.
        BuildError: a layer cannot be built.
        SourceError: source without layergraph cannot express a part of the model. The message lists
            all such parts.

    Example:
        >>> import torch, layergraph as lg
        >>> print(lg.to_source(lg.to_ir(torch.nn.Linear(2, 3)), "make"))
        from torch import nn
        <BLANKLINE>
        <BLANKLINE>
        def make():
            model = nn.Linear(2, 3)
            return model
        <BLANKLINE>
    """
    if not isinstance(ir, Ir):
        raise ArgumentError(f"a {type(ir).__name__} stands where the Ir belongs; to_ir gives one")
    if not isinstance(class_name, str) or not is_argument_name(class_name):
        raise ArgumentError(f"{class_name!r} cannot be the name of a class; give an identifier")
    check(ir)
    refuse_packed(ir, "a module of source code")
    return _Writer(ir, class_name).write()


class _Writer:
    def __init__(self, ir: Ir, class_name: str) -> None:
        converter = get_default_converter()
        self._ir = ir
        self._context = Context(ir)
        self._class_name = self._context.class_name(class_name)
        self._tree = Tree(ir, converter)
        targets = Targets(converter.hooks.named_functions())
        self._functions = FunctionWriter(self._context, targets)
        self._layers = LayerWriter(self._context, converter.hooks)
        self._ancestry = Ancestry.of(ir)
        self._bodies = owned(ir)
        self._classes = ClassWriter(ir, self._context, self._class_name)
        self._members = MemberWriter(
            ir, self._tree, self._context, self._layers, self._classes.made
        )
        if self._class_name != class_name:
            raise ArgumentError(
                f"{class_name!r} is a name that the module or an input of it needs; give another"
            )

    def write(self) -> str:
        self._prepare()
        is_class = self._ir[self._ir.root].type == MODULE
        root = "self" if is_class else "model"
        last = Finishing(self._ir, self._tree, self._context, root).lines()
        texts = self._classes.write(self._composite, last)
        if not is_class:
            texts.append(self._function(last))
        self._check_names()
        self._context.problems.refuse()
        definitions = [*self._context.definitions(), *texts]
        return _joined(self._used_imports(definitions), definitions)

    def _prepare(self) -> None:
        """Import and copy the definitions of functions first, so that no variable takes a name."""
        for implementation in self._ir.values():
            for graph in implementation.graphs:
                for node in graph.nodes.values():
                    place = Place("implementation", implementation.name).at("node", node.name)
                    try:
                        if node.type == FUNCTION:
                            self._functions.prepare(node.implementation, node.args or ())
                        for record in records(*(node.args or ()), *node.kwargs.values()):
                            self._context.prepare_record(record)
                    except UnspeakableError as error:
                        self._context.problems.add(
                            place, str(error), "use functions of torch, or of another library"
                        )

    def _check_names(self) -> None:
        for name in sorted(self._context.parameters & {*self._context.helpers.names}):
            self._context.problems.add(
                Place("the IR"),
                f"an input has the name {name!r} of a function that the module needs",
                "rename the input",
            )

    def _function(self, last: list[str]) -> str:
        template = self._members.expression(self._ir.root)
        texts = [each.text for each in holes(template)]
        text, _ = rendered([template], lambda number: texts[number])
        lines = [f"def {self._class_name}():", *laid_out(f"model = {text}", INDENT)]
        for line in last:
            lines += laid_out(line, INDENT)
        return "\n".join([*lines, f"{INDENT}return model"])

    def _composite(self, name: str) -> Composite:
        implementation = self._ir[name]
        statements = tuple(self._members.statements(implementation))
        constants = [
            each
            for each, spec in implementation.tensors.items()
            if spec.kind == "constant"
            and (spec.dtype is None or "int" not in spec.dtype)
            and spec.dtype != "bool"
        ]
        wide = [
            f"({quoted(each)}, {self._context.torch}.{spec.dtype or 'float32'})"
            for each, spec in implementation.tensors.items()
            if spec.narrows is False
        ]
        base, fields = f"{self._context.nn}.Module", []
        if constants or wide:
            base = self._context.helper("_WithConstants")
        if wide:
            fields.append(f"_wide = {displayed_tuple(wide)}")
        if constants:
            fields.append(f"_constants = {displayed_tuple([quoted(each) for each in constants])}")
        return Composite(
            implementation, base, tuple(fields), statements, tuple(self._methods(implementation))
        )

    def _methods(self, implementation: Implementation) -> list[str]:
        bodies = [self._ir[each] for each in self._bodies.get(implementation.name, ())]
        members = self._tree.modules[implementation.name]
        taken = {*_INHERITED, *dir(members), *members._modules, *members._parameters}
        namer = Namer({*taken, *members._buffers})
        names = {each.name: namer.name(each.name.rpartition("/")[2]) for each in bodies}
        found = []
        if implementation.kept_modes:
            found.append(self._train(implementation))
        for each in (implementation, *bodies):
            if each.nodes:
                writer = MethodWriter(
                    self._context,
                    self._functions,
                    each,
                    lambda receiver, step: self._read(implementation, receiver, step),
                    lambda step: self._siblings(implementation, step),
                    names,
                )
                is_root = each.name == self._ir.root
                found.append(writer.write(names.get(each.name, "forward"), is_root=is_root))
        return found

    def _read(self, implementation: Implementation, receiver: str, step: Step) -> str:
        """Return the expression of the module or tensor that a node reads."""
        owner, rest = step.node.implementation, ""
        if step.node.type == STATE:
            owner, rest = owner_of(self._ir, step.node.implementation)
        path = self._ancestry.path(implementation.name, owner)
        full = ".".join(part for part in (path or "", rest) if part)
        return reading(receiver, self._tree.modules[implementation.name], full)

    def _siblings(self, implementation: Implementation, step: Step) -> int:
        """Return the number of items of the container that holds the called module."""
        path = self._ancestry.path(implementation.name, step.node.implementation) or ""
        container = find_module(self._tree.modules[implementation.name], path.rpartition(".")[0])
        return len(container) if isinstance(container, nn.ModuleList | nn.Sequential) else 0

    def _train(self, implementation: Implementation) -> str:
        module = self._tree.modules[implementation.name]
        pairs = []
        for path, mode in implementation.kept_modes.items():
            text = reading("self", module, path)
            pairs.append(f"({text}, {f'{text}.training' if mode is None else mode})")
        deeper = INDENT * 2
        lines = [f"{INDENT}def train(self, mode=True):"]
        lines += laid_out(f"kept = [{', '.join(pairs)}]", deeper)
        lines += [f"{deeper}super().train(mode)", f"{deeper}for module, own in kept:"]
        lines += [f"{deeper}{INDENT}module.training = own", f"{deeper}return self"]
        return "\n".join(lines)

    def _used_imports(self, definitions: list[str]) -> list[str]:
        text = "\n".join(definitions)
        return self._context.used_imports(text)


def _joined(imports: list[str], definitions: list[str]) -> str:
    """Return the text of a module, with two empty lines around functions and classes."""
    found = "\n".join(imports)
    was_block = True
    for text in definitions:
        is_block = text.startswith(("def ", "class ", "@"))
        gap = "\n\n\n" if is_block or was_block else "\n"
        if not found:
            gap = ""
        elif not is_block and found == "\n".join(imports):
            gap = "\n\n"
        found += gap + text
        was_block = is_block
    return f"{found}\n"
