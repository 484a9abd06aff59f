"""The subcommands ``fingerprint`` and ``index``."""

from __future__ import annotations

import json as json_text
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer  # only the command line imports this module, and it depends on typer


def fingerprint(
    file: Annotated[Path, typer.Argument(help="A file of layergraph.save.")],
    block: Annotated[
        str | None, typer.Option(help="The name of a block; without it, the model.")
    ] = None,
    *,
    names: Annotated[bool, typer.Option("--names", help="Count the names of modules.")] = False,
    blocks: Annotated[bool, typer.Option("--blocks", help="List those of all blocks.")] = False,
) -> None:
    """Print a digest of the structure of a model. It reads no weights."""
    # Import here, because listing the subcommands does not need it.
    import layergraph as lg
    from layergraph_index.fingerprint import fingerprint, fingerprints

    ir = lg.load(file)
    if blocks:
        for name, digest in fingerprints(ir, names=names).items():
            _line(f"{digest}  {name}")
    else:
        _line(fingerprint(ir, block, names=names))


def index(
    folder: Annotated[Path, typer.Argument(help="A folder with files of models.")],
    like: Annotated[
        Path | None, typer.Option(help="List the models that share blocks with this file.")
    ] = None,
    block: Annotated[
        str | None, typer.Option(help="List the models that have this block of the file.")
    ] = None,
    *,
    names: Annotated[bool, typer.Option("--names", help="Count the names of modules.")] = False,
    db: Annotated[
        Path | None, typer.Option(help="The file of the index; by default one in the folder.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Group the models in a folder by their structure.

    It reads files that are new or have changed, and no weights. Files that cannot be read are
    listed with the reason.
    """
    from layergraph.errors import ArgumentError
    from layergraph_index.index import Index

    if block is not None and like is None:
        raise ArgumentError("--block names a block of a file; give the file with --like")
    with Index(folder, db) as found:
        update = found.update()
        if like is None:
            groups, errors = found.groups(names=names), found.errors()
            form: dict[str, Any] = {
                "groups": {each.fingerprint: each.paths for each in groups},
                "errors": errors,
            }
            counts = update.files, update.read, len(groups), len(errors)
            lines = ["{} files, {} read, {} structures, {} unreadable".format(*counts)]
            for group in groups:
                lines += [f"{group.fingerprint[:16]}  {len(group.paths)} files"]
                lines += [f"  {path}" for path in group.paths]
            lines += [f"{path}: {error}" for path, error in errors.items()]
        else:
            form = dict(_likeness(found, like, block))
            lines = [line for path, said in form.items() for line in _said(path, said)]
    if json:
        typer.echo(json_text.dumps(form, indent=2))
    else:
        for line in lines:
            _line(line)


def _likeness(index: Any, like: Path, block: str | None) -> Iterator[tuple[str, Any]]:
    """Yield for each model that shares blocks with a file the common blocks and the differences."""
    import layergraph as lg
    from layergraph.errors import ArgumentError
    from layergraph_index.fingerprint import fingerprints
    from layergraph_tools.difference import diff

    ir = lg.load(like)
    digests = fingerprints(ir)
    if block is not None and block not in digests:
        raise ArgumentError(f"{str(like)!r} has no block {block!r}; give the name of one")
    wanted = [digests[block]] if block is not None else list(digests.values())
    own = {digest: name for name, digest in reversed(digests.items())}
    for each in index.relatives(digests[ir.root], wanted):
        path = index.folder / each.path
        if path.exists() and like.exists() and path.samefile(like):
            continue
        shared = {own[part.fingerprint]: [part.name, part.count] for part in each.blocks}
        difference = None if each.is_same else diff(ir, lg.load(path))
        differs = list(difference.lines()) if difference else []
        yield each.path, {"same": not differs, "shares": shared, "differs": differs}


def _said(path: str, said: dict[str, Any]) -> Iterator[str]:
    yield f"{path}: {'the same structure' if said['same'] else 'shares'}"
    if not said["same"]:
        for own, (name, count) in said["shares"].items():
            yield f"  {own} (there {name}{f', {count} times' if count > 1 else ''})"
        yield "  and differs:"
        for each in said["differs"]:
            yield f"    {each}"


def _line(text: str) -> None:
    """Print a line without control characters: a file must not control the terminal."""
    escaped = (
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
    typer.echo("".join(escaped))
