"""Paths that users give, and files that are opened without harm."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from os import PathLike
from pathlib import Path

from layergraph.errors import ArgumentError, FileError
from layergraph_files.parse_errors import ParseError, shown

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

# Opening a pipe waits for its other end; opening a terminal may make it that of this process.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)


def to_path(given: object, call: str) -> Path:
    """The path that a user gives, if the system can name a file so.

    Args:
        given: the path.
        call: how the function is called that it was given to, for errors.

    Raises:
        ArgumentError: it is no path.
        FileError: no file has such a name.
    """
    text = os.fspath(given) if isinstance(given, str | PathLike) else given
    if not isinstance(text, str):
        raise ArgumentError(f"a {type(given).__name__} stands where the path belongs: {call}")
    if not text:
        raise FileError("the path is empty; name a file")
    if not can_name(text):
        raise FileError(f"{shown(text)}: no file has such a name; give another path")
    return Path(text)


def can_name(text: str) -> bool:
    """Return whether the system has a way to write a path: without NUL and halves of characters."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def status(path: Path) -> os.stat_result | None:
    """The system's description of a path; None if nothing is there that can be read."""
    # Path.exists lets some errors out: for names that are too long, and folders that are closed.
    try:
        return path.stat()
    except OSError:
        return None


def is_folder(path: Path) -> bool:
    """Return whether a path leads to a folder."""
    found = status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read it; nothing else is opened, and nothing waits.

    Raises:
        FaultError: it is a pipe, a device, a socket or a folder.
        OSError: the system refuses.
    """
    # Even to open some devices does something to them.
    expect_regular(path.stat().st_mode)
    descriptor = os.open(path, _FLAGS)
    try:
        expect_regular(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def expect_regular(mode: int) -> None:
    """Raise for what is no regular file.

    Raises:
        FaultError: it is none.
    """
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise ParseError(None, f"it is {kind}, and no file", "give the path of a file")


def within(path: Path, index: Path) -> Path:
    """The file that the path of a shard leads to, without links.

    A link may lead on inside the folder. Caches keep the files of a model in one folder, under
    names made of their content, and a folder of links to them for each version (that of Hugging
    Face does): where the index is such a link, the shards may lie where it does.

    Args:
        path: the path.
        index: the path of the index, which is in the same folder.

    Raises:
        FaultError: a link leads elsewhere.
    """
    if not path.is_symlink():
        return path
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(index.parent))
    if real.is_relative_to(home) or real.parent == Path(os.path.realpath(index)).parent:
        return real
    remedy = "if you trust the folder, put the file itself there"
    raise ParseError(None, f"it is a link that leads out of the folder, to {shown(real)}", remedy)
