"""Import the object of ``package.module:name``, and call it."""

from __future__ import annotations

import functools
import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layergraph.errors import LayergraphError, first_line, near


class NamedError(LayergraphError):
    """An argument of a command names an object that the command cannot use."""


def named(text: str) -> Any:
    """Return the object that a text names. Its module may be in the current folder.

    Raises:
        NamedError: the text names no object, or its module cannot be imported.
    """
    home, _, way = text.partition(":")
    if not all(part.isidentifier() for part in (*home.split("."), *way.split("."))):
        raise NamedError(f"{text!r} names no object; write package.module:function")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{home}.".startswith(f"{error.name}."):
            raise _failure(f"importing {home}", error) from error
        where = "in this folder or installed"
        raise NamedError(f"there is no module {error.name} {where}; correct {text!r}") from None
    except (Exception, SystemExit) as error:
        raise _failure(f"importing {home}", error) from error
    try:
        return functools.reduce(getattr, way.split("."), module)
    except AttributeError:
        hint = "".join(near(way, vars(module))) or f"correct {text!r}"
        raise NamedError(f"the module {home} has no {way}; {hint}") from None


def called(text: str, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a function, and return its result.

    Args:
        text: the name of the function, for messages.
        function: the function.
        arguments: its arguments by name.

    Raises:
        NamedError: the object is not callable, or it raises.
    """
    if not callable(function):
        raise NamedError(f"{text} is a {type(function).__name__}; name a function")
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:
        raise _failure(f"{text} failed", error) from error


def _failure(what: str, error: BaseException) -> NamedError:
    frames = traceback.extract_tb(error.__traceback__)
    # The first frame belongs to this module. Without further frames, the function did not start.
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
    message = f": {first_line(error)}" if str(error) else ""
    return NamedError(f"{what}: {type(error).__name__}{message}{place}; mend it")
