"""Checking paths, and opening regular files only."""

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

# Without these flags, opening a pipe waits, and opening a terminal may make it the controlling one.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)


def to_path(given: object, call: str) -> Path:
    """Return the path that a user gave.

    Args:
        given: the path.
        call: the signature of the function that the user called, for errors.

    Raises:
        ArgumentError: it is not a path.
        FileError: no file can have this name.
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
    """Return whether a file can have a path: it has no NUL and no unpaired surrogate."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def status(path: Path) -> os.stat_result | None:
    """Return the status of a path; None if it does not exist or cannot be accessed."""
    # Path.exists raises for names that are too long, and for folders without permission.
    try:
        return path.stat()
    except OSError:
        return None


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder or a link to one."""
    found = status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading, without waiting.

    Raises:
        ParseError: the path is a pipe, a device, a socket or a folder.
        OSError: the system cannot open the file.
    """
    # Check before opening too, because opening some devices changes their state.
    expect_regular(path.stat().st_mode)
    descriptor = os.open(path, _FLAGS)
    try:
        expect_regular(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def expect_regular(mode: int) -> None:
    """Raise unless a mode (``st_mode``) is that of a regular file.

    Raises:
        ParseError: it is the mode of a pipe, a device, a socket or a folder.
    """
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise ParseError(None, f"it is {kind}, not a file", "give the path of a file")


def within(path: Path, index: Path) -> Path:
    """Return the real path of a shard, if it is in an allowed folder.

    A shard may be a link to a file inside the folder of the index. A cache, such as that of Hugging
    Face, has one folder with the files of a model, and a folder of links for each version. So if
    the index is a link too, a shard may be in the folder of the index's real file.

    Args:
        path: the path of the shard.
        index: the path of the index, which is in the same folder.

    Raises:
        ParseError: the shard is a link to a file in another folder.
    """
    if not path.is_symlink():
        return path
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(index.parent))
    if real.is_relative_to(home) or real.parent == Path(os.path.realpath(index)).parent:
        return real
    remedy = "if you trust the folder, put the file itself there"
    raise ParseError(None, f"it is a link that leads out of the folder, to {shown(real)}", remedy)
