"""The command line imports only public modules of the core, and its README lists them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import layergraph_cli

FOLDER = Path(layergraph_cli.__file__).parent
README = (Path(__file__).parents[1] / "README.md").read_text()


def imported() -> Iterator[tuple[str, str]]:
    """Yield each imported module of the core, with each imported name."""
    for file in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((each.name, "") for each in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.module or "", each.name) for each in node.names)


OF_THE_CORE = {pair for pair in imported() if pair[0].split(".")[0] == "layergraph"}


def test_the_readme_lists_the_modules_of_the_core():
    listed = re.findall(r"^- `(layergraph[\w.]*)`$", README, re.MULTILINE)
    assert listed == sorted({module for module, _ in OF_THE_CORE})


def test_no_private_name_is_used():
    parts = {part for module, name in OF_THE_CORE for part in (*module.split("."), name)}
    assert [each for each in parts if each.startswith("_")] == []


def test_the_former_name_is_the_same_module():
    code = "import sys, layergraph.cli.app, layergraph_cli.app as app; "
    code += "assert sys.modules['layergraph.cli'] is sys.modules['layergraph_cli']; "
    code += "assert sys.modules['layergraph.cli.app'] is app; assert layergraph.cli.app is app"
    subprocess.run([sys.executable, "-c", code], check=True)
