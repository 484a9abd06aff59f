"""Numbers in the text of a message, which no later code of the model reads.

A model may write a size into a message: ``logger.warning(f"padded to {size} tokens")``. The
statement drops the result of the call, and logs, warnings and the screen return no text to the
model. So the number needs no guard.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import linecache
import logging
import warnings
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

import torch

from layergraph.torch2ir.code_owners import is_of_user
from layergraph.torch2ir.tracing.lines import calling_frame

# These parse whole files, for the few messages of a model.
_MOST_FILES = 8
_MOST_PLACES = 1024
_LOGGERS = (logging.Logger, logging.LoggerAdapter)
_FUNCTIONS = (builtins.print, warnings.warn, torch._assert)


def is_in_message() -> bool:
    """Return whether the running instruction writes a number into a message, and only there."""
    frame = calling_frame()
    if frame.f_code.co_filename == logging.__file__:
        # A logger writes its arguments into the text itself.
        return True
    if not is_of_user(frame.f_code.co_filename):
        return False
    call = _message(frame.f_code, frame.f_lasti)
    return call is not None and _only_shows(call, frame)


@functools.lru_cache(maxsize=_MOST_PLACES)
def _message(code: CodeType, offset: int) -> ast.Call | None:
    """Return the call that takes the text of an instruction, if its statement only makes this call.

    Args:
        code: the code.
        offset: the offset of the instruction.
    """
    line, end_line, column, end_column = [*code.co_positions()][offset // 2]
    place = line, column, end_line, end_column
    if None in place:
        return None
    for call in _calls(code.co_filename):
        if any(_place(text) == place for text in (call, *_texts_of(call))):
            return call
    return None


@functools.lru_cache(maxsize=_MOST_FILES)
def _calls(filename: str) -> tuple[ast.Call, ...]:
    """Return the calls in a file whose results are dropped."""
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return ()
    statements = [each for each in ast.walk(tree) if isinstance(each, ast.Expr)]
    return tuple(each.value for each in statements if isinstance(each.value, ast.Call))


def _texts_of(call: ast.Call) -> Iterator[ast.expr]:
    for each in call.args:
        yield from _texts(each)


def _texts(node: ast.expr) -> Iterator[ast.expr]:
    """Yield the expressions in an argument that make texts, which are parts of the argument.

    Python 3.11 gives the place of an f-string to each number in it, so none may be inside another
    one.
    """
    if isinstance(node, ast.JoinedStr):
        values = [each.value for each in node.values if isinstance(each, ast.FormattedValue)]
        if not any(isinstance(each, ast.JoinedStr) for value in values for each in ast.walk(value)):
            yield node
            yield from (each for each in node.values if isinstance(each, ast.FormattedValue))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _texts(node.left)
        yield from _texts(node.right)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        if isinstance(node.left, ast.Constant) and type(node.left.value) is str:
            yield node
    elif isinstance(node, ast.Call):
        match node.func:
            case ast.Name("str" | "repr") | ast.Attribute(ast.Constant(str()), "format"):
                yield node


def _place(node: ast.expr) -> tuple[int | None, ...]:
    # The columns of both are in bytes.
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


def _only_shows(call: ast.Call, frame: FrameType) -> bool:
    """Return whether a call writes its arguments to a log, a warning, an error or the screen."""
    if isinstance(call.func, ast.Attribute):
        owner = _static(call.func.value, frame)
        if issubclass(type(owner), _LOGGERS):
            return True
    # A file may be one that the model reads.
    has_file = any(each.arg in ("file", None) for each in call.keywords)
    return not has_file and any(_static(call.func, frame) is each for each in _FUNCTIONS)


def _static(node: ast.expr, frame: FrameType) -> Any:
    """Return the value of a name or an attribute, without running code of it; None if unknown."""
    if isinstance(node, ast.Attribute):
        return inspect.getattr_static(_static(node.value, frame), node.attr, None)
    if not isinstance(node, ast.Name):
        return None
    for scope in (frame.f_locals, frame.f_globals, vars(builtins)):
        if node.id in scope:
            return scope[node.id]
    return None
