"""Code that asks whether two of its variables are one object, which no tensor tells of."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterable
from pathlib import Path
from types import CodeType

from layergraph.torch2ir.code_owners import is_of_user

_IS = dis.opmap["IS_OP"]
# Dataclasses compare the arguments of their constructors with this, by a name that ends so.
_NO_ARGUMENT = ("HAS_DEFAULT_FACTORY", "HAS_DEFAULT_FACTORY__")


def compares_objects(codes: Iterable[CodeType]) -> str:
    """Return the place of a comparison such as ``key is value``; "" if there is none.

    Args:
        codes: the functions that have run.
    """
    for code in codes:
        if _IS in code.co_code[::2] and is_of_user(code.co_filename):
            line = _comparison(code)
            if line is not None:
                return f"{Path(code.co_filename).name}, line {line}, in {code.co_name}"
    return ""


# A capture runs the same functions many times.
@functools.lru_cache(maxsize=4096)
def _comparison(code: CodeType) -> int | None:
    """Return the line in which a function compares two local variables by identity."""
    loads, line = 0, code.co_firstlineno
    for each in dis.get_instructions(code):
        if each.starts_line is not None:
            line = each.positions.lineno or line if each.positions else line
        if each.opname == "IS_OP" and loads > 1:
            return line
        # Newer releases of Python load two variables at once.
        variables = each.opname.count("LOAD_FAST") + each.opname.count("LOAD_DEREF")
        is_compared = variables and not str(each.argval).endswith(_NO_ARGUMENT)
        loads = loads + variables if is_compared else 0
    return None
