"""Checking and executing generated code. No other module of layergraph executes code.

A check of the syntax tree runs first: it allows the few kinds of syntax that graphs need.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable
from typing import Any

from torch.fx.graph_module import _loader

from layergraph.errors import BuildError
from layergraph.ir2torch.codegen import GeneratedCode

# The kinds of syntax that generated code may have. None of them imports, loops, catches, unpacks or
# formats, and the only definition is that of the forward function.
_FORMS: frozenset[type[ast.AST]] = frozenset(
    {
        *(ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.With, ast.withitem),
        *(ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Pass),
        *(ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Load, ast.Store),
        *(ast.Tuple, ast.List, ast.Dict, ast.Call, ast.keyword),
        *(ast.UnaryOp, ast.BinOp, ast.Compare),
        *ast.unaryop.__subclasses__(),
        *ast.operator.__subclasses__(),
        *ast.cmpop.__subclasses__(),
    }
)

_LEAVES = frozenset({ast.Name, ast.Constant})
# These fields hold text or numbers, not syntax. The rules below check the names among them. The
# syntax around a node decides its ``ctx``: to load, to store, or in a statement that has no form
# above.
_ATOMS = frozenset({"arg", "attr", "ctx", "id", "kind", "name", "simple", "type_comment"})


def _inside(form: type[ast.AST]) -> Callable[[ast.AST], Iterable[Any]]:
    """Return a getter of the child nodes of a kind of syntax node, and of lists of them."""
    fields = [each for each in form._fields if each not in _ATOMS]
    if form in _LEAVES or not fields:
        return lambda _: ()
    get = operator.attrgetter(*fields)
    return get if len(fields) > 1 else lambda node: (get(node),)


_INSIDE = {form: _inside(form) for form in _FORMS}


def compiled_forward(code: GeneratedCode, co_fields: dict[str, Any]) -> Callable[..., Any]:
    """Check generated code, execute it, and return the function that it defines.

    Args:
        code: the code.
        co_fields: the graph's fields for the file name that tracebacks show.

    Raises:
        BuildError: the code has syntax that no graph needs.
    """
    tree = checked_tree(code)
    # Tracebacks and torch.jit.script look up the source text under this name.
    name = _loader.cache(code.source, code.globals, co_fields)
    scope = dict(code.globals)
    exec(compile(tree, name, "exec", dont_inherit=True), scope)  # noqa: S102
    forward: Callable[..., Any] = scope["forward"]
    return forward


def checked_tree(code: GeneratedCode) -> ast.Module:
    """Return the syntax tree of generated code, after a check.

    Raises:
        BuildError: the code has syntax that no graph needs.
    """
    try:
        tree = ast.parse(code.source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BuildError(
            f"a graph cannot be written as Python: {error}; correct the names in it"
        ) from None
    _Check(code).module(tree)
    return tree


class _Check:
    def __init__(self, code: GeneratedCode) -> None:
        self._code = code
        self._getattr = next((name for name, each in code.globals.items() if each is getattr), None)
        self._forward: ast.AST | None = None
        self._known = {*code.globals}
        self._read: dict[str, ast.Name] = {}
        self._rules: dict[type, Callable[[Any], None]] = {
            ast.FunctionDef: self._function,
            ast.arg: self._parameter,
            ast.With: self._region,
            ast.Name: self._name,
            ast.Attribute: self._attribute,
            ast.Call: self._call,
        }

    def module(self, tree: ast.Module) -> None:
        self._forward = tree.body[0] if len(tree.body) == 1 else tree
        if not isinstance(self._forward, ast.FunctionDef):
            self._refuse(self._forward)
        # ast.walk takes several times as long.
        rules = self._rules
        stack: list[Any] = [tree]
        while stack:
            node = stack.pop()
            kind = type(node)
            if kind is list:
                stack += filter(None, node)
                continue
            if kind not in _INSIDE:
                self._refuse(node)
            if kind in rules:
                rules[kind](node)
            stack += filter(None, _INSIDE[kind](node))
        for name in self._read.keys() - self._known:
            self._refuse(self._read[name])

    def _function(self, node: ast.FunctionDef) -> None:
        if node is not self._forward or node.name != "forward" or node.decorator_list:
            self._refuse(node)

    def _parameter(self, node: ast.arg) -> None:
        if node.arg in self._code.globals:
            self._refuse(node)
        self._known.add(node.arg)

    def _name(self, node: ast.Name) -> None:
        if type(node.ctx) is ast.Load:
            self._read[node.id] = node
        elif node.id in self._code.globals:
            self._refuse(node)
        else:
            self._known.add(node.id)

    def _attribute(self, node: ast.Attribute) -> None:
        if node.attr not in self._code.attributes or type(node.ctx) is not ast.Load:
            self._refuse(node)

    def _call(self, node: ast.Call) -> None:
        """Allow calls of objects among the globals, and of attributes that the graph names."""
        called = node.func
        if isinstance(called, ast.Call):
            if not isinstance(called.func, ast.Name) or called.func.id != self._getattr:
                self._refuse(node)
        elif isinstance(called, ast.Name):
            if called.id not in self._code.globals:
                self._refuse(node)
            if called.id == self._getattr:
                self._reading(node)
        elif not isinstance(called, ast.Attribute):
            self._refuse(node)

    def _reading(self, node: ast.Call) -> None:
        """Allow ``getattr`` of attributes that the graph names."""
        name = node.args[1] if len(node.args) > 1 else None
        if not isinstance(name, ast.Constant) or name.value not in self._code.attributes:
            self._refuse(node)

    def _region(self, node: ast.With) -> None:
        entered = node.items[0].context_expr
        called = entered.func if isinstance(entered, ast.Call) else None
        if not isinstance(called, ast.Attribute) or called.attr != "_ending_regions":
            self._refuse(node)

    def _refuse(self, node: ast.AST) -> None:
        line = getattr(node, "lineno", 1)
        text = "".join(self._code.source.splitlines()[line - 1 : line]).strip()
        raise BuildError(
            f"the code of a graph holds a {type(node).__name__} that no graph needs, in line "
            f"{line}: {text[:200]!a}; correct the names in the graph"
        )
