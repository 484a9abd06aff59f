"""Symbolic sizes: torch's own, under the names that the caller gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy  # type: ignore[import-untyped]  # torch depends on it
import torch
from sympy.printing.precedence import PRECEDENCE  # type: ignore[import-untyped]
from sympy.printing.str import StrPrinter  # type: ignore[import-untyped]
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from layergraph.errors import ShapeError

_STEP = 32
"""The example of the first named size is near 32, of the second near 64, and so on."""


class Sizes:
    """The symbolic sizes of one walk.

    torch decides a branch on a symbolic size by its example, and records the condition. It assumes
    that no size is 0 or 1.

    Args:
        examples: the example of a size, by its name; other names get a default example.
    """

    def __init__(self, examples: Mapping[str, int]) -> None:
        self.env = ShapeEnv(duck_shape=False)
        self._examples = dict(examples)
        self._named: dict[str, torch.SymInt] = {}
        self._symbols: dict[str, Any] = {}
        self._names: dict[Any, Any] = {}

    def named(self, name: str) -> torch.SymInt:
        """Return the size of a name; the same one each time."""
        if name not in self._named:
            hint = self._examples.get(name, _STEP * (len(self._named) + 1))
            source = ConstantSource(name)
            symbol = self.env.create_symbol(hint, source, DimDynamic.DYNAMIC, None)
            size: Any = self.env.create_symintnode(symbol, hint=hint, source=source)
            self._named[name] = size
            self._symbols[name] = symbol
            self._names[symbol] = sympy.Symbol(name, integer=True, positive=True)
        return self._named[name]

    def unknown(self) -> Any:
        """Return a size that no input determines."""
        return self.env.create_unbacked_symint()

    @property
    def count(self) -> int:
        """The number of sizes, those included that no input determines."""
        return len(self.env.var_to_range)

    def described(self, value: Any) -> Any:
        """Return a number, or the text of a symbolic one; any other value unchanged."""
        if not isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            return value
        expression: Any = self.env.replace(value.node.expr)
        if expression.is_number or expression in (sympy.true, sympy.false):
            kinds = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}
            return kinds[type(value)](expression)
        return self._text(expression)

    def _text(self, expression: Any) -> str:
        said: str = _Printer().doprint(expression.xreplace(self._names))
        return said

    def fixed(self) -> str | None:
        """Return a name whose size is fixed at one number by now; None if there is none.

        The results are then valid for this number only.
        """
        for name, symbol in self._symbols.items():
            if self.env.replace(symbol) != symbol:
                return name
        return None

    def value_of(self, name: str) -> str:
        """Return the number or the expression at which a name was fixed."""
        return self._text(self.env.replace(self._symbols[name]))

    def conditions(self) -> tuple[str, ...]:
        """Return the conditions on named sizes under which the results are valid."""
        found: dict[str, None] = {}
        for guard in self.env.guards:
            expression = self.env.replace(guard.expr)
            free = expression.free_symbols
            # torch assumes that computed sizes are neither 0 nor 1, as for named sizes.
            is_usual = isinstance(expression, sympy.Ne) and expression.args[1] in (0, 1)
            if free and free <= self._names.keys() and not is_usual:
                found[self._text(expression)] = None
        return tuple(found)


class _Printer(StrPrinter):  # type: ignore[misc]
    """Prints expressions as Python does, with few parentheses."""

    printmethod = "_text_of_layergraph"  # the classes of torch print themselves otherwise

    def _print_FloorDiv(self, expression: Any) -> str:  # noqa: N802 the name of the class
        return self._infix("//", expression)

    def _print_Mod(self, expression: Any) -> str:  # noqa: N802
        return self._infix("%", expression)

    _print_PythonMod = _print_Mod  # noqa: N815

    def _print_ToFloat(self, expression: Any) -> str:  # noqa: N802
        said: str = self._print(expression.args[0])
        return said

    def _print_TruncToInt(self, expression: Any) -> str:  # noqa: N802
        return f"int({self._print(expression.args[0])})"

    def _infix(self, sign: str, expression: Any) -> str:
        sides = [self.parenthesize(each, PRECEDENCE["Pow"]) for each in expression.args]
        return f"({sign.join(sides)})" if sign == "%" else sign.join(sides)

    def _print_Relational(self, expression: Any) -> str:  # noqa: N802
        left, right = map(self._print, expression.args)
        return f"{left} {expression.rel_op} {right}"


def check_name(name: str) -> None:
    """Raise if a text is not the name of a size.

    Raises:
        ShapeError: it is not an identifier, or torch uses such names.
    """
    is_of_torch = name[:1] == "u" and name[1:].isdigit()
    if not name.isidentifier() or is_of_torch:
        raise ShapeError(
            f"{name!r} is no name for a size; use an identifier, such as 'batch', but not 'u0'"
        )
