"""The contract of the hooks, kept around every implementation: what breaks it is known by name."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

from layergraph.errors import LayergraphError, first_line
from layergraph.ir import Implementation

if TYPE_CHECKING:
    from torch import nn

MANY = 100_000
"""More rows or names than this, a hook does not list: it is taken not to come to an end."""


class HookFailure(Exception):  # noqa: N818 the places that ask make an error of it
    """An implementation of a hook raised an error, or gave what the hook does not allow.

    Attributes:
        owner: whose implementation it is.
        hook: the name of the hook.
        error: what it raised; None if it gave something wrong.
        reason: what it did, as a sentence without its subject.
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
    """An implementation of a hook that fails in one way only, with its name.

    Args:
        hook: the name of the hook.
        function: the implementation.
        owner: whose it is.
        is_wrapper: whether it runs around the others.

    Returns:
        The implementation. It raises HookFailure, an error of layergraph that the implementation
        raises on purpose, or KeyboardInterrupt.
    """
    if is_wrapper:
        return _contained_wrapper(hook, function, owner)
    check = _CHECKS[hook]

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        try:
            answer = function(*args)
            return answer if answer is None else check(answer)
        except (LayergraphError, KeyboardInterrupt):
            raise
        except _WrongError as error:
            raise HookFailure(owner, hook, str(error)) from None
        except BaseException as error:
            raise _failure(hook, owner, error) from error

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
    """An answer is not what the hook asks for."""


def listed(items: Iterable[Any]) -> list[Any] | None:
    """All that an iterable gives; None if it comes to no end."""
    found = list(itertools.islice(items, MANY + 1))
    return None if len(found) > MANY else found


def _shown(value: Any) -> str:
    try:
        return " ".join(repr(value).split())[:80]
    except Exception:
        return f"a {type(value).__name__}"


def _implementation(answer: Any) -> Implementation:
    if not isinstance(answer, Implementation):
        raise _WrongError(f"gave {_shown(answer)}; it must give an Implementation or None")
    wrong = (
        ("type" if not isinstance(answer.type, str) else "")
        or ("data" if not isinstance(answer.data, dict) else "")
        or ("children" if not isinstance(answer.children, _CHILDREN) else "")
        or ("tensors" if not isinstance(answer.tensors, dict) else "")
    )
    if wrong:
        raise _WrongError(
            f"gave an Implementation whose {wrong} is {_shown(getattr(answer, wrong))}; it must be "
            f"{'text' if wrong == 'type' else 'a dict'}"
        )
    return answer


_CHILDREN = (dict, type(None))


def _module(answer: Any) -> nn.Module:
    from torch import nn

    if not isinstance(answer, nn.Module):
        raise _WrongError(f"gave {_shown(answer)}; it must give a torch.nn.Module or None")
    return answer


def _capturer(answer: Any) -> Any:
    from layergraph.capturing import Capturer

    if not isinstance(answer, Capturer):
        raise _WrongError(f"gave {_shown(answer)}; it must give a Capturer or None")
    return answer


def _many(answer: Any, what: str, is_right: Callable[[Any], bool]) -> list[Any]:
    """All items of an answer, each of them right."""
    is_iterable = isinstance(answer, Iterable) and not isinstance(answer, str | bytes)
    items = listed(answer) if is_iterable else []
    if items is None:
        raise _WrongError(f"gave more than {MANY} items, or does not end; give fewer")
    if not is_iterable or not all(map(is_right, items)):
        raise _WrongError(f"gave {_shown(answer)}; it must give {what}")
    return items


def _names(answer: Any) -> list[str]:
    return _many(answer, "full names of functions", lambda each: isinstance(each, str))


def command_name(function: Callable[..., Any]) -> str:
    """The name of the subcommand that a function is: ``new_plugin`` is ``new-plugin``."""
    return function.__name__.lower().replace("_", "-")


def _is_command(function: object) -> bool:
    return inspect.isfunction(function) and function.__name__[:1].isalpha()


def _commands(answer: Any) -> list[Callable[..., Any]]:
    found = _many(answer, "functions, each with a name that starts with a letter", _is_command)
    names = [command_name(each) for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _WrongError(f"gave two functions for the command {twice!r}; it must give one")
    return found


def _formats(answer: Any) -> list[Any]:
    from layergraph.formats import Format

    found = _many(answer, "rows, each a layergraph.Format", lambda each: isinstance(each, Format))
    for row in found:
        if not isinstance(row.suffix, str) or row.suffix != row.suffix.lower():
            raise _WrongError(f"gave a format for {row.suffix!r}; give a suffix in lower case")
    suffixes = [row.suffix for row in found]
    twice = next((each for each in suffixes if suffixes.count(each) > 1), None)
    if twice is not None:
        raise _WrongError(f"gave two formats for {twice!r}; it must give one")
    return found


def _inputs(answer: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    match answer:
        case (tuple() as args, dict() as kwargs):
            return args, kwargs
    raise _WrongError(
        f"gave {_shown(answer)}; it must give a tuple of arguments and a dict of those by name"
    )


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "torch_to_ir": _implementation,
    "ir_to_torch": _module,
    "capture": _capturer,
    "functions": _names,
    "example_inputs": _inputs,
    "commands": _commands,
    "formats": _formats,
}
