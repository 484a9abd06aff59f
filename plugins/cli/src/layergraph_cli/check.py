"""``layergraph check``: check that a model can be built from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layergraph.errors import FileError, InvalidIrError, LayergraphError
from layergraph_cli.output import as_json, counted, in_options, line, one_line
from layergraph_files.limits import DEFAULT_LIMITS
from layergraph_files.reader import opened


def check(
    file: Annotated[Path, typer.Argument(help="A .safetensors or .json file, index or folder.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check that a model can be built from a file.

    layergraph reads the file within the limits of layergraph.load_model, builds the model on the
    meta device, and compares its tensors with those in the file. It reads no weights. Exit code
    1: the model cannot be built.
    """
    found = {"layers": 0, "tensors": 0}
    problems: list[str] = []
    try:
        with opened(file, DEFAULT_LIMITS) as model:
            found = {"layers": len(model.ir), "tensors": len(model.weights)}
            # Imported here, because importing torch takes a second, and an unreadable file needs
            # none.
            from layergraph_files.build import build, build_meta_model

            if model.weights:
                build(model, "meta", None, DEFAULT_LIMITS)
            else:
                build_meta_model(model, DEFAULT_LIMITS)
    except InvalidIrError as error:
        problems = [one_line(in_options(str(each))) for each in error.problems]
    except LayergraphError as error:
        if isinstance(error, FileError) and isinstance(error.__cause__, OSError):
            raise
        problems = [one_line(in_options(str(error)))]
    if json:
        as_json({"file": str(file), "ok": not problems, **found, "problems": problems})
    elif problems:
        for each in problems:
            line(each)
    else:
        weights = counted(found["tensors"], "tensor") if found["tensors"] else "no weights"
        line(("OK", "green"), f": {file}: {counted(found['layers'], 'layer')}, {weights}")
    return 1 if problems else 0
