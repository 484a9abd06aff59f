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

    The list contains all plugins in the order in which layergraph asks them: the plugin that
    answers, others that would answer, and those that decline. Exit code 1: no plugin answers.
    """
    # Import before named() puts the current folder into sys.path: a module there may hide one that
    # these imports need.
    from torch import nn

    import layergraph as lg

    about: type[nn.Module] | str = subject
    if ":" in subject:
        about = named(subject)
        if not (isinstance(about, type) and issubclass(about, nn.Module)):
            raise NamedError(f"{subject} is not a class of modules; name a class or a type")
    explanation = lg.explain(about, disable=disable or ())
    if json:
        as_json(explanation.to_dict())
    else:
        for each in str(explanation).splitlines():
            line((each, "bold" if each.startswith("  * ") else ""))
    return 0 if all(chain.winner for chain in explanation.chains) else 1
