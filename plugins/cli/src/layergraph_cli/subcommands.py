"""Make subcommands of typer from the commands of plugins."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

import typer
from typer.main import get_command

from layergraph.errors import LayergraphError, PluginError, first_line
from layergraph_cli.installed import Command

# layergraph_cli.app handles these.
_PASSED_ON = (LayergraphError, OSError, MemoryError, typer.TyperException, typer.Abort, typer.Exit)


def plain_app(**options: Any) -> typer.Typer:
    """Make a typer app that prints plain text, and leaves tracebacks to Python."""
    return typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **options
    )


def subcommand(command: Command) -> Any:
    """Make the subcommand of a command from the signature of its function.

    Raises:
        Exception: typer cannot read the signature.
    """
    app = plain_app()
    # Do not wrap a built-in command, so that a bug in it shows a traceback.
    is_ours = command.plugin.is_builtin
    app.command(command.name)(command.function if is_ours else _guarded(command))
    return get_command(app)


def _guarded(command: Command) -> Callable[..., int | None]:
    """Wrap the function of a command: unexpected errors and results become a PluginError."""

    @functools.wraps(command.function)
    def call(*args: Any, **kwargs: Any) -> int | None:
        try:
            code = command.function(*args, **kwargs)
        except _PASSED_ON:
            raise
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise PluginError(
                f"{owned(command)} raised {type(error).__name__}: {first_line(error)} "
                f"({place.filename}:{place.lineno}); mend or disable {command.plugin.distribution}"
            ) from error
        if not isinstance(code, int | None):
            raise PluginError(
                f"{owned(command)} returned a {type(code).__name__}; it must return an exit "
                "code or None"
            )
        return code

    return call


def owned(command: Command) -> str:
    """Return a text for messages that names a command and its plugin."""
    return f"the command {command.name!r} of {command.plugin}"
