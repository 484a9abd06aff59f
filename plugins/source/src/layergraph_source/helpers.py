"""Copies of functions in a written module, with the definitions that they use."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from dataclasses import dataclass
from types import ModuleType

from layergraph import torch_versions
from layergraph_source import runtime

ERRORS = frozenset({"AssumptionError", "CaptureError"})
FUTURE = "from __future__ import annotations"


class UncopiedError(Exception):
    """A function that cannot be copied. Callers catch it and add the place."""


@dataclass(frozen=True, slots=True)
class _Module:
    """The statements of a module, by the names that they define."""

    lines: list[str]
    statements: dict[str, ast.stmt]
    imports: dict[str, str]

    def text(self, statement: ast.stmt) -> str:
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *[each.lineno for each in decorators]])
        lines = self.lines[first - 1 : statement.end_lineno]
        # Remove comments for our own checkers from the copy.
        return "\n".join([re.sub(r"  # (type: ignore|noqa).*", "", line) for line in lines])


class Helpers:
    """The functions that are copied into a written module, in the order of their definitions."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int, str]] = {}
        self._imports: dict[str, None] = {}

    def add(self, module: ModuleType, name: str) -> str:
        """Copy a function or class with the definitions that it uses; return its name.

        Of layergraph they may use the errors, and :mod:`layergraph.torch_versions`: a written
        module runs on each release of torch too.

        Raises:
            UncopiedError: it uses more of layergraph, or another copy has its name.
        """
        read = _read(module)
        waiting = [name]
        while waiting:
            each = waiting.pop()
            home, statement = module.__name__, read.statements.get(each)
            if statement is None:
                waiting += self._import(read, each)
                continue
            known = self._found.get(each)
            if known is not None:
                if known[0] != home:
                    raise UncopiedError(f"{home}.{each} has the name of a function of {known[0]}")
                continue
            self._found[each] = home, statement.lineno, read.text(statement)
            names = _names(statement)
            if isinstance(statement, ast.ClassDef) and each in names:
                self._imports[FUTURE] = None  # its annotations name the class itself
            waiting += sorted(names & (read.statements.keys() | read.imports.keys()))
        return name

    def _import(self, read: _Module, name: str) -> list[str]:
        line = read.imports.get(name)
        if line is None:
            raise UncopiedError(f"there is no {name!r} to copy")
        if "layergraph" in line:
            home = runtime if name in ERRORS else torch_versions
            if name in _read(home).statements:
                self.add(home, name)
                return []
            raise UncopiedError(f"it uses {name!r} of layergraph")
        self._imports[line] = None
        return []

    @property
    def names(self) -> list[str]:
        """Return the names of the copied definitions."""
        return list(self._found)

    @property
    def imports(self) -> list[str]:
        """Return the import lines of the copies."""
        return sorted(self._imports)

    def texts(self) -> list[str]:
        """Return the copies, each as text."""
        listed = sorted(self._found.values(), key=lambda each: (each[0] != runtime.__name__, *each))
        return [text for _, _, text in listed]

    def is_class(self, text: str) -> bool:
        """Return whether a copy defines a function or class rather than a value."""
        return text.startswith(("def ", "class ", "@"))


@functools.cache
def _read(module: ModuleType) -> _Module:
    text = inspect.getsource(module)
    statements: dict[str, ast.stmt] = {}
    imports: dict[str, str] = {}
    for each in ast.parse(text).body:
        if isinstance(each, ast.FunctionDef | ast.ClassDef):
            statements[each.name] = each
        elif isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
            statements[each.targets[0].id] = each
        elif isinstance(each, ast.Import | ast.ImportFrom):
            for alias in each.names:
                one = ast.unparse(
                    ast.Import([alias])
                    if isinstance(each, ast.Import)
                    else ast.ImportFrom(each.module, [alias], each.level)
                )
                imports[alias.asname or alias.name.partition(".")[0]] = one
    return _Module(text.splitlines(), statements, imports)


def _names(statement: ast.stmt) -> set[str]:
    return {each.id for each in ast.walk(statement) if isinstance(each, ast.Name)}


def module_of(name: str) -> ModuleType:
    """Return the module of a name."""
    return importlib.import_module(name)
