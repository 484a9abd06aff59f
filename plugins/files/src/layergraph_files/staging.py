"""The files that a save writes, until they take their places."""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from layergraph_files.parse_errors import ParseError, shown

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

_PATIENCE = 60.0

# What has the name of a lock may be a link that leads elsewhere, or a pipe, which waits.
_FLAGS = 0
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY"):
    _FLAGS |= getattr(os, _name, 0)


@dataclass
class Staging:
    """The files of a save that have not taken their places.

    Attributes:
        lock: the path of a file that is locked as long as the save runs; theirs begin with it.
        mode: the rights of a file that is new.
        files: their paths.
        in_doubt: whether the old model and the new one are both in their places.
    """

    lock: str
    mode: int
    files: list[str] = field(default_factory=list)
    in_doubt: bool = False

    def file(self) -> BinaryIO:
        """One more file, that others may not read yet."""
        path = f"{self.lock}-{len(self.files)}"
        self.files.append(path)
        return open(path, "xb", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def staging(target: Path) -> Iterator[Staging]:
    """Files beside a target, of which those are removed in the end that have not taken places.

    A lock tells others that their save is running. The system takes the lock from a process that
    ends, so the next save finds what a killed one left: it frees the room on the disk at once, and
    removes the file with the lock when its own files are in their places. Until then that one tells
    readers why there may be two forms of one model.
    """
    left = False
    for abandoned in _abandoned(target):
        left = True
        _remove(_files(abandoned))
    with ExitStack() as stack:
        while (stage := _locked(target, stack)) is None:
            pass
        try:
            yield stage
            for abandoned in _abandoned(target) if left else ():
                _remove([*_files(abandoned), abandoned])
        finally:
            _remove(stage.files)
            # Like a killed save, one that fails between the two leaves word of it.
            if not stage.in_doubt:
                _remove([stage.lock])


def is_staged(target: Path) -> bool:
    """Return whether a save of this name is running, or was killed."""
    return any(True for _ in _locks(target))


@contextmanager
def exclusive(target: Path) -> Iterator[bool]:
    """Keep other saves of a name from moving its files; gives False where there are no locks.

    Raises:
        FaultError: another one does so all the time, or something else has the lock's name.
    """
    path = _beside(target, "moving")
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        try:
            file = open(path, "ab", opener=_without_harm)  # noqa: SIM115  it is closed below
        except OSError as error:
            if not os.path.lexists(path):
                raise
            message = f"no lock can be had at {shown(path)}: {error.strerror or error}"
            raise ParseError(None, message, "remove what is there") from error
        with file:
            # Another save may have removed it before it was locked here.
            if (locked := _lock(file)) is not False and _is_at(file, path):
                try:
                    yield bool(locked)
                finally:
                    # Before the lock goes with the file: a process that was forked has that too.
                    _remove([path])
                return
        time.sleep(0.01)
    message = f"another save has been moving files for {_PATIENCE:.0f} seconds"
    raise ParseError(None, message, "try again, or save under another name")


def _is_at(file: BinaryIO, path: str) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False


def _without_harm(path: str, flags: int) -> int:
    return os.open(path, flags | _FLAGS, 0o666)


def _lock(file: BinaryIO) -> bool | None:
    """Return whether a lock could be taken; None where the system has none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _beside(target: Path, use: str) -> str:
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{use}-{_short(name)}")


@functools.lru_cache(maxsize=16)
def _short(name: str) -> str:
    # Of one length, because the name of the target may be as long as a name can be.
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:12]


def _locks(target: Path) -> Iterator[str]:
    """The files with the locks of saves that are running, or were killed."""
    start = f"{_beside(target, 'saving')}-"
    with suppress(OSError):
        yield from (path for path in _beginning(start) if "-" not in path[len(start) :])


def _files(lock: str) -> list[str]:
    """The files of a save that has a lock."""
    return _beginning(f"{lock}-")


def _beginning(path: str) -> list[str]:
    """The paths that begin with one, in its folder."""
    folder, start = os.path.split(path)
    names = os.listdir(folder or os.curdir)
    return [os.path.join(folder, name) for name in names if name.startswith(start)]


def _locked(target: Path, stack: ExitStack) -> Staging | None:
    """A new lock; None if another save took it for abandoned before it was locked."""
    path = f"{_beside(target, 'saving')}-{secrets.token_hex(4)}"
    file = stack.enter_context(open(path, "xb"))  # noqa: SIM115  the stack closes it
    if _lock(file) is False or not _is_at(file, path):
        return None
    return Staging(path, os.fstat(file.fileno()).st_mode & 0o777)


def _abandoned(target: Path) -> Iterator[str]:
    """The locks that killed saves left, each locked as long as it is looked at."""
    for path in _locks(target):
        # It may have gone just now, or belong to another user. Network file systems lock only what
        # is opened to be written.
        with suppress(OSError), open(path, "r+b", opener=_without_harm) as file:
            if _lock(file) and _is_at(file, path):
                yield path


def _remove(paths: Iterable[str]) -> None:
    # The next save removes what cannot be removed now. The lock is the last to go.
    for path in paths:
        with suppress(OSError):
            os.unlink(path)
