"""The command line: runs the subcommands of plugins, and prints their errors.

The exit code is 0 for success, 1 if a check fails, and 2 for wrong usage and errors.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, cast

import typer
from typer.core import TyperGroup
from typer.main import get_command

import layergraph
from layergraph.errors import InvalidIrError, LayergraphError, first_line
from layergraph.plugins import warn_of_skipped
from layergraph_cli.installed import installed_commands
from layergraph_cli.output import in_options, line, one_line, warn
from layergraph_cli.subcommands import owned, plain_app, subcommand

NO = 1
TROUBLE = 2
INTERRUPTED = 130
CLOSED_PIPE = 141


def _version(asked: bool) -> None:
    if asked:
        line(f"layergraph {layergraph.__version__}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _app() -> TyperGroup:
    """Make the command, with the subcommands of all plugins."""
    app = plain_app(
        name="layergraph",
        help="Show, check, compare and convert PyTorch models that are graphs of layers in files.",
    )
    app.callback()(_options)
    group = cast("TyperGroup", get_command(app))
    for command in installed_commands():
        if command.name in group.commands:
            continue  # an earlier plugin has a command of this name
        try:
            group.add_command(subcommand(command), command.name)
        except Exception as error:
            warn_of_skipped(
                f"{owned(command)} is skipped: {type(error).__name__}: {first_line(error)}; "
                "mend its signature"
            )
    return group


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand, and print an error in one line.

    Args:
        arguments: the arguments after ``layergraph``; None: those of the process.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        # Escape characters that the encoding of the terminal lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: warn(message)
        try:
            code = _app().main(
                args=None if arguments is None else list(arguments),
                prog_name="layergraph",
                standalone_mode=False,
            )
            sys.stdout.flush()
        except KeyboardInterrupt:
            return _fail("interrupted", INTERRUPTED)
        except (BrokenPipeError, SystemExit) as error:
            # If a pipe is closed, typer and rich exit with 1. Here, 1 would mean a failed check.
            if not any(isinstance(each, BrokenPipeError) for each in (error, error.__context__)):
                raise
            # Redirect the output, because Python flushes its buffer at exit and would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED_PIPE
        except typer.TyperException as error:
            # The context names the subcommand.
            command = getattr(getattr(error, "ctx", None), "command_path", "layergraph")
            return _fail(f"{error.format_message().rstrip('.')}; see {command} --help", TROUBLE)
        except LayergraphError as error:
            return _fail(_message(error), TROUBLE)
        except MemoryError:
            return _fail("the process is out of memory", TROUBLE)
        except OSError as error:
            return _fail(f"{error.strerror or error}", TROUBLE)
        return _fail("interrupted", code) if code == INTERRUPTED else int(code or 0)


def _message(error: LayergraphError) -> str:
    if not isinstance(error, InvalidIrError):
        return str(error)
    first, *others = error.problems
    more = f" (and {len(others)} more: layergraph check lists them)" if others else ""
    return f"{first}{more}"


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"layergraph: {one_line(in_options(message))}\n")
    return code
