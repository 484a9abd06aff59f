"""Mutation tests: change the code in many places, one at a time, and run the tests.

    python -m tests.mutate [--seed 15] [--count 40] [--only 3,7] [--list] [--fast] [--listed]

We choose a place by the hash of its statement and function, not by its path: code that moves to
another file keeps its mutations, so that counts before and after a restructuring are comparable.
Each mutation changes a copy of the checkout. The test files that mention most of the names around
the place run first, then the others, until a test fails. A test that also fails without the
mutation does not count.

The mutations of ``mutations.toml``, which were chosen by hand, run last; with ``--listed``, only
these run.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
FIRST = 4  # the number of test files that run before all others
LIST_TEST = "tests/test_mutations.py"  # quotes the code, so it fails at each listed mutation
SECONDS = 900  # the limit of a run in seconds: after it, the mutation counts as caught
MEMORY = 24 << 30

_OPERATORS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Mutation:
    """A place of the code, and the text that takes its place.

    Attributes:
        path: the file, from the root of the checkout.
        line: its first line.
        start: its first byte in the file.
        end: the byte after its last one.
        old: the text there.
        new: the other text.
        scope: the names of the classes and functions around it.
        key: decides which mutations are chosen.
    """

    path: str
    line: int
    start: int
    end: int
    old: str
    new: str
    scope: tuple[str, ...]
    key: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line} {'.'.join(self.scope)}"
        return f"{where}\n      {_short(self.old)}  ->  {_short(self.new)}"

    def apply(self, root: Path) -> None:
        """Make the change in a copy of the checkout."""
        code = (root / self.path).read_bytes()
        new = code[: self.start] + self.new.encode() + code[self.end :]
        (root / self.path).write_bytes(new)


def _short(text: str) -> str:
    return " ".join(text.split())[:90]


# --- where the code can be changed ---


def mutations(seed: int) -> list[Mutation]:
    """Return every possible mutation, in an order that the seed decides."""
    sources = [CHECKOUT / "core" / "src", *sorted(CHECKOUT.glob("plugins/*/src"))]
    files = [file for source in sources for file in sorted(source.rglob("*.py"))]
    found = [each for file in files for each in _Finder(file, seed).find()]
    return sorted(found, key=lambda each: each.key)


def listed() -> list[Mutation]:
    """Return the mutations that were chosen by hand."""
    with (CHECKOUT / "tests" / "mutations.toml").open("rb") as file:
        return [_listed(**each) for each in tomllib.load(file)["mutation"]]


def _listed(path: str, old: str, new: str) -> Mutation:
    code = (CHECKOUT / path).read_bytes()
    start = code.find(old.encode())
    if start < 0 or code.find(old.encode(), start + 1) >= 0:
        raise ValueError(f"{path} has to contain this once: {old}")
    line = code[:start].count(b"\n") + 1
    scope = _scope_of(ast.parse(code), line)
    return Mutation(path, line, start, start + len(old.encode()), old, new, scope, "")


def _scope_of(node: ast.AST, line: int) -> tuple[str, ...]:
    """Return the names of the classes and functions around a line."""
    for child in ast.iter_child_nodes(node):
        is_scope = isinstance(child, ast.FunctionDef | ast.ClassDef)
        if is_scope and child.lineno <= line <= (child.end_lineno or line):
            return child.name, *_scope_of(child, line)
    return ()


class _Finder:
    def __init__(self, file: Path, seed: int) -> None:
        self.path = file.relative_to(CHECKOUT).as_posix()
        self.code = file.read_bytes()
        self.seed = seed
        self.starts = [0]
        for line in self.code.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.seen: dict[str, int] = {}

    def find(self) -> Iterator[Mutation]:
        yield from self._in(ast.parse(self.code), ())

    def _in(self, node: ast.AST, scope: tuple[str, ...]) -> Iterator[Mutation]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            scope = (*scope, node.name)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                # Python 3.11 records wrong positions for the parts of an f-string.
                if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                    # Code outside functions makes tables and constants, so leave it out.
                    for new in _changes(child) if scope else ():
                        yield self._mutation(child, new, scope)
                    yield from self._in(child, scope)

    def _mutation(self, node: ast.AST, new: str, scope: tuple[str, ...]) -> Mutation:
        start, end = (
            self.starts[line - 1] + column
            for line, column in (
                (node.lineno, node.col_offset),
                (node.end_lineno, node.end_col_offset),
            )
        )
        text = f"{scope} {ast.unparse(node)} {new}"
        count = self.seen[text] = self.seen.get(text, 0) + 1
        key = hashlib.sha256(f"{self.seed} {count} {text}".encode()).hexdigest()
        old = self.code[start:end].decode()
        return Mutation(self.path, node.lineno, start, end, old, new, scope, key)


def _changes(node: ast.AST) -> Iterator[str]:
    """Yield the texts that may take the place of a node."""
    yield from _other_statements(node) if isinstance(node, ast.stmt) else _other_values(node)


def _other_statements(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
            yield "return None"
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.AugAssign() | ast.Delete():
            yield "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass"
        case ast.Continue():
            yield "break"


def _other_values(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Compare(ops=[operator]):
            other = _OPERATORS[type(operator)]()
            yield f"({ast.unparse(ast.Compare(node.left, [other], node.comparators))})"
        case ast.BoolOp():
            connective = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield f"({ast.unparse(ast.BoolOp(connective, node.values))})"
        case ast.UnaryOp(op=ast.Not()):
            yield f"({ast.unparse(node.operand)})"
        case ast.IfExp():
            yield f"({ast.unparse(ast.IfExp(node.test, node.orelse, node.body))})"
        case ast.Constant(value=bool()):
            yield str(not node.value)
        case ast.Constant(value=int()):
            yield f"({node.value + 1})"


# --- which tests may notice ---


def test_files(mutation: Mutation) -> list[str]:
    """Return the test files, those first that mention most names around the place.

    The test of the list of mutations is missing: it compares texts, and runs none of the code.
    """
    folders = ["core/tests", *CHECKOUT.glob("plugins/*/tests"), "tests"]
    files = [file for each in folders for file in (CHECKOUT / each).rglob("test_*.py")]
    package = Path(mutation.path).parts[: 2 if mutation.path.startswith("plugins") else 1]
    words = [*mutation.scope, Path(mutation.path).stem.strip("_")]
    pattern = re.compile(
        "|".join(rf"(?<![a-z]){re.escape(each.strip('_'))}(?![a-z])" for each in words)
    )

    def relevance(file: Path) -> tuple[float, str]:
        path, text = file.relative_to(CHECKOUT), file.read_text()
        near = path.parts[: len(package)] == package
        density = len(pattern.findall(text)) / (len(text) + 2000)
        named = bool(pattern.search(path.stem))
        return -(density * (4 if near else 1) * (4 if named else 1)), path.as_posix()

    ours = [file for file in files if "third_party" not in file.parts]
    names = [file.relative_to(CHECKOUT).as_posix() for file in sorted(ours, key=relevance)]
    return [name for name in names if name != LIST_TEST]


class Copy:
    """A copy of the checkout, in which tests run."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        names = subprocess.run(listed, cwd=CHECKOUT, capture_output=True, check=True).stdout
        for name in filter(None, names.decode().split("\0")):
            if (CHECKOUT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(CHECKOUT / name, self.root / name)
        temporary = folder / "temporary"
        temporary.mkdir()
        sources = [self.root / "core" / "src", *self.root.glob("plugins/*/src"), self.root]
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, sources)),
            "TMPDIR": str(temporary),
        }

    def failure(self, tests: list[str], *options: str) -> str:
        """Run tests. Return the first that fails, or the error of the run; empty if all pass."""
        command = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
        process = subprocess.Popen(
            [*command, *options, *tests],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Safe: this process has one thread.
            preexec_fn=lambda: resource.setrlimit(  # noqa: PLW1509
                resource.RLIMIT_AS, (MEMORY, MEMORY)
            ),
        )
        try:
            said, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"no end after {SECONDS} seconds"
        if process.returncode in (0, 5):  # exit code 5: the file has slow tests only
            return ""
        failed = re.search(r"^(?:FAILED|ERROR) (\S.*?)(?: - |$)", said, re.MULTILINE)
        return failed[1] if failed else said[-300:].strip() or f"exit code {process.returncode}"


def try_out(mutation: Mutation, *, fast: bool) -> str:
    """Return the test that catches a mutation; empty if the mutation survives."""
    options = ("-m", "not slow") if fast else ()
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        original = (copy.root / mutation.path).read_bytes()
        files = test_files(mutation)
        for some in (files[:FIRST], files[FIRST:]):
            mutation.apply(copy.root)
            failed = copy.failure(some, *options)
            (copy.root / mutation.path).write_bytes(original)
            if failed and not ("::" in failed and copy.failure([failed])):
                return failed
    return ""


def main() -> None:
    """Choose mutations, try them, and print which survive."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=15, help="chooses other places")
    parser.add_argument("--count", type=int, default=40, help="the number of mutations")
    parser.add_argument("--only", default="", help="numbers of mutations, with commas")
    parser.add_argument("--list", action="store_true", help="print the mutations, and run nothing")
    parser.add_argument("--fast", action="store_true", help="leave out the slow tests")
    parser.add_argument("--listed", action="store_true", help="those of mutations.toml alone")
    options = parser.parse_args()
    chosen = [] if options.listed else mutations(options.seed)[: options.count]
    chosen += listed()
    only = {int(each) for each in options.only.split(",") if each} or range(1, len(chosen) + 1)
    survived = []
    for number, mutation in enumerate(chosen, start=1):
        if number not in only:
            continue
        print(f"{number:4}  {mutation}", flush=True)
        if options.list:
            continue
        start = time.monotonic()
        caught = try_out(mutation, fast=options.fast)
        survived += [] if caught else [number]
        outcome = f"caught by {caught}" if caught else "SURVIVED"
        print(f"      {outcome}  ({time.monotonic() - start:.0f} s)", flush=True)
    if not options.list:
        print(f"caught {len(only) - len(survived)} of {len(only)}; survived: {survived or 'none'}")


if __name__ == "__main__":
    main()
