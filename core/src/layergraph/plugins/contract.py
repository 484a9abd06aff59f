"""The contract of the hooks: layergraph checks each answer of an implementation.

If an implementation raises, or answers with a wrong type, a :class:`HookFailure` names the plugin
and the hook.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import re
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

from layergraph.errors import LayergraphError, first_line
from layergraph.ir import Implementation

MANY = 100_000
"""The most rows or names that a hook may list. We take a longer list to be endless."""


class HookFailure(Exception):  # noqa: N818 callers turn it into a LayergraphError
    """The failure of a hook implementation: it raised, or its answer has a wrong type.

    Attributes:
        owner: the plugin or converter that the implementation belongs to, as text.
        hook: the name of the hook.
        error: the exception that it raised; None if its answer has a wrong type.
        reason: the predicate of a sentence about the implementation: ``"raised KeyError: 'a'"``.
    """

    def __init__(
        self, owner: str, hook: str, reason: str, error: BaseException | None = None
    ) -> None:
        super().__init__(f"the hook {hook!r} of {owner} {reason}")
        self.owner = owner
        self.hook = hook
        self.reason = reason
        self.error = error


def contained(
    hook: str, function: Callable[..., Any], owner: str, *, is_wrapper: bool = False
) -> Callable[..., Any]:
    """Wrap a hook implementation, so that each failure names its owner and the hook.

    Args:
        hook: the name of the hook.
        function: the implementation.
        owner: the plugin or converter that it belongs to, as text.
        is_wrapper: True if it runs around the other implementations.

    Returns:
        The wrapped implementation. It raises a :class:`HookFailure`, the LayergraphError that the
        implementation raises on purpose, or KeyboardInterrupt, and nothing else.
    """
    if is_wrapper:
        return _contained_wrapper(hook, function, owner)
    return functools.wraps(function)(first_answer_of(hook, [(owner, function)]))


def first_answer_of(
    hook: str, asked: Sequence[tuple[str, Callable[..., Any]]]
) -> Callable[..., Any]:
    """Return a function that asks implementations of a hook in order, until one answers.

    Args:
        hook: the name of the hook.
        asked: the owner and the function of each implementation. All take the same arguments.

    Returns:
        The function. It raises what that of :func:`contained` raises.
    """
    check = _CHECKS[hook]

    def call(*args: Any) -> Any:
        owner = ""
        try:
            for owner, function in asked:  # noqa: B007 the handlers below read the owner
                answer = function(*args)
                if answer is not None:
                    return check(answer)
        except (LayergraphError, KeyboardInterrupt):
            raise
        except _WrongError as error:
            raise HookFailure(owner, hook, str(error)) from None
        except BaseException as error:
            raise _failure(hook, owner, error) from error
        return None

    return call


def _contained_wrapper(hook: str, function: Callable[..., Any], owner: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Generator[Any, Any, Any]:
        try:
            return (yield from function(*args))
        except (LayergraphError, HookFailure, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            raise _failure(hook, owner, error) from error

    return call


def _failure(hook: str, owner: str, error: BaseException) -> HookFailure:
    return HookFailure(owner, hook, f"raised {type(error).__name__}: {first_line(error)}", error)


class _WrongError(Exception):
    """An answer of a type that the hook does not allow."""


def listed(items: Iterable[Any]) -> list[Any] | None:
    """Return the items of an iterable as a list; None if there are more than :data:`MANY`."""
    found = list(itertools.islice(items, MANY + 1))
    return None if len(found) > MANY else found


def _shown(value: Any) -> str:
    try:
        return " ".join(repr(value).split())[:80]
    except Exception:
        return f"a {type(value).__name__}"


def _one(answer: Any, cls: type, wanted: str) -> Any:
    if not isinstance(answer, cls):
        raise _WrongError(f"returned {_shown(answer)}; it must return {wanted} or None")
    return answer


def _implementation(answer: Any) -> Any:
    _one(answer, Implementation, "an Implementation")
    wrong = (
        ("type" if not isinstance(answer.type, str) else "")
        or ("data" if not isinstance(answer.data, dict) else "")
        or ("children" if not isinstance(answer.children, _CHILDREN) else "")
        or ("tensors" if not isinstance(answer.tensors, dict) else "")
    )
    if wrong:
        raise _WrongError(
            f"returned an Implementation whose {wrong} is {_shown(getattr(answer, wrong))}; it "
            f"must be {'text' if wrong == 'type' else 'a dict'}"
        )
    return answer


_CHILDREN = (dict, type(None))


def _module(answer: Any) -> Any:
    from torch import nn

    return _one(answer, nn.Module, "a torch.nn.Module")


def _capturer(answer: Any) -> Any:
    from layergraph.capturing import Capturer

    return _one(answer, Capturer, "a Capturer")


def _unwrapped(answer: Any) -> Any:
    from torch import nn

    from layergraph.hook_types.wrapping import Unwrapped

    _one(answer, Unwrapped, "an Unwrapped")
    if not isinstance(answer.module, nn.Module):
        raise _WrongError(
            f"returned an Unwrapped whose module is {_shown(answer.module)}; give a torch.nn.Module"
        )
    if not all("." in name for name in answer.annotations):
        raise _WrongError(
            f"returned the annotations {_shown(list(answer.annotations))}; a name has to have a dot"
        )
    return answer


def _many(answer: Any, what: str, is_right: Callable[[Any], bool]) -> list[Any]:
    """Return the items of an answer, or raise if one is invalid."""
    is_iterable = isinstance(answer, Iterable) and not isinstance(answer, str | bytes)
    items = listed(answer) if is_iterable else []
    if items is None:
        raise _WrongError(f"returned more than {MANY} items, or does not end; give fewer")
    if not is_iterable or not all(map(is_right, items)):
        raise _WrongError(f"returned {_shown(answer)}; it must return {what}")
    return items


def _functions(answer: Any) -> list[Any]:
    from layergraph.hook_types.factories import Factory

    found = _many(answer, "full names of functions", lambda each: isinstance(each, str | Factory))
    for row in found:
        if isinstance(row, Factory) and not (
            isinstance(row.made, str) and isinstance(row.call, str) and callable(row.arguments)
        ):
            raise _WrongError(f"returned {_shown(row)}; give two full names and a function")
    return found


def command_name(function: Callable[..., Any]) -> str:
    """Return the name of a function's subcommand: ``new-plugin`` for ``new_plugin``."""
    return function.__name__.lower().replace("_", "-")


def _is_command(function: object) -> bool:
    return inspect.isfunction(function) and function.__name__[:1].isalpha()


def _commands(answer: Any) -> list[Callable[..., Any]]:
    found = _many(answer, "functions, each with a name that starts with a letter", _is_command)
    _refuse_twice([command_name(each) for each in found], "functions for the command {!r}")
    return found


def _rows(answer: Any, cls: type) -> list[Any]:
    wanted = f"rows, each a layergraph.{cls.__name__}"
    return _many(answer, wanted, lambda each: isinstance(each, cls))


def _formats(answer: Any) -> list[Any]:
    from layergraph.hook_types.formats import Format

    found = _rows(answer, Format)
    for row in found:
        if not isinstance(row.suffix, str) or row.suffix != row.suffix.lower():
            raise _WrongError(f"returned a format for {row.suffix!r}; give a suffix in lower case")
        for role in ("write", "read", "build"):
            given = getattr(row, role)
            if given is not None and not callable(given):
                raise _WrongError(
                    f"returned a format for {row.suffix!r} whose {role} is {_shown(given)}; give a "
                    "function or None"
                )
    _refuse_twice([row.suffix for row in found], "formats for {!r}")
    return found


def _refuse_twice(given: list[Any], named: str) -> None:
    """Refuse duplicates in a plugin's answer.

    Args:
        given: the names of the listed items.
        named: a format string that names such items in the plural.
    """
    twice = next((each for each in given if given.count(each) > 1), None)
    if twice is not None:
        raise _WrongError(f"returned two {named.format(twice)}; it must return one")


def _structures(answer: Any) -> list[Any]:
    from layergraph.hook_types.structures import Structure

    found = _rows(answer, Structure)
    for row in found:
        if not isinstance(row.cls, type):
            raise _WrongError(f"returned a structure of {_shown(row.cls)}; give a class")
        said = f"a structure of {row.cls.__name__}"
        _check_callable(row, said, "flatten", "unflatten", is_one=inspect.isfunction)
    _refuse_twice([row.cls for row in found], "structures of {.__name__}")
    return found


_KIND_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def _tensor_kinds(answer: Any) -> list[Any]:
    from layergraph.tensors.kinds import TensorKind

    found = _rows(answer, TensorKind)
    for row in found:
        if not isinstance(row.name, str) or not _KIND_NAME.fullmatch(row.name):
            raise _WrongError(
                f"returned a kind of tensors named {_shown(row.name)}; give the name of the "
                "library, a dot, and a name"
            )
        _check_callable(row, f"a kind of tensors {row.name!r}", "flatten", "unflatten")
    _refuse_twice([row.name for row in found], "kinds of tensors named {!r}")
    return found


def _check_callable(
    row: object, said: str, *roles: str, is_one: Callable[[Any], bool] = callable
) -> None:
    """Refuse a row whose functions are none."""
    for role in roles:
        if not is_one(getattr(row, role)):
            raise _WrongError(
                f"returned {said} whose {role} is {_shown(getattr(row, role))}; give a function"
            )


_PASS_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def _passes(answer: Any) -> list[Any]:
    from layergraph.hook_types.passes import Pass

    found = _rows(answer, Pass)
    for row in found:
        if not isinstance(row.name, str) or not _PASS_NAME.fullmatch(row.name):
            raise _WrongError(
                f"returned a pass named {_shown(row.name)}; give words in lower case with hyphens"
            )
        _check_callable(row, f"a pass {row.name!r}", "function")
    _refuse_twice([row.name for row in found], "passes named {!r}")
    return found


_TARGET = re.compile(r"[a-z][a-z0-9_-]*")


def _lowerings(answer: Any) -> list[Any]:
    from layergraph.hook_types.lowerings import Lowering

    found = _rows(answer, Lowering)
    for row in found:
        if not isinstance(row.target, str) or not _TARGET.fullmatch(row.target):
            raise _WrongError(
                f"returned a handler for the target {_shown(row.target)}; give a word in lower case"
            )
        _check_callable(row, f"a handler for {row.target!r}", "function")
        for role in ("layers", "functions"):
            names = getattr(row, role)
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                raise _WrongError(
                    f"returned a handler for {row.target!r} whose {role} are {_shown(names)}; "
                    "give a list of names"
                )
    return found


def _inputs(answer: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    match answer:
        case (tuple() as args, dict() as kwargs):
            return args, kwargs
    raise _WrongError(
        f"returned {_shown(answer)}; it must return a tuple of arguments and a dict of those by "
        "name"
    )


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "torch_to_ir": _implementation,
    "ir_to_torch": _module,
    "unwrap": _unwrapped,
    "capture": _capturer,
    "functions": _functions,
    "example_inputs": _inputs,
    "commands": _commands,
    "formats": _formats,
    "structures": _structures,
    "tensor_kinds": _tensor_kinds,
    "passes": _passes,
    "lowerings": _lowerings,
}
