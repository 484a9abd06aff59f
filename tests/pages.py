"""Pages of Markdown as scripts: their files are written, their commands run, their output compared.

The tests follow a page in its order:

- a block with a title, ``toml title="acme/pyproject.toml"``, is a file with that name and content;
- a ``console`` block holds commands, after ``$ ``, each with its full output;
- a ``python`` block without a title is code, and a ``text`` block after ``prints`` is its output.

``...`` stands for any text in an output.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    # Skip environments, caches and builds, which contain pages of other projects.
    if not any(part.startswith(".") or part == "site" for part in page.relative_to(ROOT).parts)
)
_BLOCK = re.compile(
    r"^(?P<fence>```+)(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^(?P=fence)\n(?:\s*prints\s*```text\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: the file.
        line: the number of lines before its text.
        language: the language after the fence.
        title: the name of the file; empty if the block is not a file.
        text: the content.
        output: the output that the page shows; None if it shows none.
    """

    page: Path
    line: int
    language: str
    title: str
    text: str
    output: str | None

    @property
    def is_code(self) -> bool:
        """Return whether the block is code that runs alone."""
        return self.language == "python" and not self.title

    def run(self) -> None:
        """Run the block as Python, and compare its output with that of the page."""
        code = compile("\n" * self.line + self.text, str(self.page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, {"__name__": "example"})
        if self.output is not None:
            compare(self.output, printed.getvalue(), f"{self.page}:{self.line}")


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start("text")),
            language=match["language"],
            title=match["title"] or "",
            text=textwrap.dedent(match["text"]),
            output=match["output"],
        )
        for match in _BLOCK.finditer(text)
    ]


def compare(shown: str, printed: str, where: str) -> None:
    """Fail if a page shows another output than the one that was printed."""
    want, got = (
        "".join(f"{line.rstrip()}\n" for line in text.strip("\n").splitlines())
        for text in (shown, printed)
    )
    same = doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS)
    assert same, f"{where} shows\n{want}\nbut it is\n{got}"


class Shell:
    """A shell that stays open, like a reader's: it keeps its folder and its virtual environment.

    Args:
        folder: the folder in which it starts.
        env: its environment variables; it inherits no others.
    """

    MARK = "=== exit status "

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        """Run a command, and return its output.

        Raises:
            AssertionError: the command failed.
        """
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null; printf '\\n{self.MARK}%d\\n' $?\n")
        self._bash.stdin.flush()
        printed: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(self.MARK):
                output = "".join(printed).removesuffix("\n")
                assert line.split()[-1] == "0", f"$ {command}\n{output}"
                return output
            printed.append(line)
        raise AssertionError(f"$ {command}\nended the shell:\n{''.join(printed)}")

    def close(self) -> None:
        """End the shell."""
        self._bash.communicate()


def follow(
    page: Path, folder: Path, env: Mapping[str, str], after: Callable[[str], None] | None = None
) -> None:
    """Follow the instructions of a page, from its first block to its last.

    Args:
        page: the page.
        folder: the folder in which the reader starts.
        env: the environment variables of the reader.
        after: a function to call after each command, with the command.
    """
    shell = Shell(folder, env)
    try:
        for block in blocks(page):
            if block.title:
                cwd = Path(shell.run("pwd").strip())
                file = cwd / block.title
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)
            elif block.language == "console":
                for entry in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                    command, _, shown = entry.partition("\n")
                    compare(shown, shell.run(command), f"{page}:{block.line}: $ {command}")
                    if after is not None:
                        after(command)
    finally:
        shell.close()


def environment(**changes: str) -> dict[str, str]:
    """Return the tests' environment without variables that add the checkout or change output."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PIP_", "LAYERGRAPH_", "VIRTUAL_ENV"))
    }
    return {**kept, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100", **changes}
