"""``layergraph explain``: show which plugin handles a layer."""

from __future__ import annotations

from typing import Annotated

import typer

from layergraph_cli.named import NamedError, named
from layergraph_cli.output import as_json, line


def explain(
    subject: Annotated[
        str, typer.Argument(metavar="TYPE", help="A type, or a class as package.module:Class.")
    ],
    disable: Annotated[
        list[str] | None, typer.Option(help="Disable the plugins of a distribution; repeatable.")
    ] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Show which plugin handles a layer, and why.

    It lists all plugins that are asked, in order: the one that answers, those that would answer
    too, and those that decline. Exit code 1: no plugin answers.
    """
    # This import comes first: later, a module of the current folder may hide another one.
    from torch import nn

    import layergraph as lg

    about: type[nn.Module] | str = subject
    if ":" in subject:
        about = named(subject)
        if not (isinstance(about, type) and issubclass(about, nn.Module)):
            raise NamedError(f"{subject} is no class of modules; name a class, or a type")
    explanation = lg.explain(about, disable=disable or ())
    if json:
        as_json(explanation.to_dict())
    else:
        for each in str(explanation).splitlines():
            line((each, "bold" if each.startswith("  * ") else ""))
    return 0 if all(chain.winner for chain in explanation.chains) else 1
