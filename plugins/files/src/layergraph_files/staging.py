"""The temporary files of a save, with locks that show whether a save is running."""

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

# A file with the name of a lock may be a link, which we must not follow, or a pipe, which waits.
_FLAGS = 0
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY"):
    _FLAGS |= getattr(os, _name, 0)


@dataclass
class Staging:
    """The temporary files of a save.

    Attributes:
        lock: the path of a file that is locked while the save runs. The paths of the temporary
            files begin with it.
        mode: the permissions of a new file.
        files: the paths of the temporary files.
        in_doubt: True while the old model and the new one are both in place.
    """

    lock: str
    mode: int
    files: list[str] = field(default_factory=list)
    in_doubt: bool = False

    def file(self) -> BinaryIO:
        """Open a new temporary file, which other users cannot read."""
        path = f"{self.lock}-{len(self.files)}"
        self.files.append(path)
        return open(path, "xb", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def staging(target: Path) -> Iterator[Staging]:
    """Create temporary files beside a target, and remove those that were not moved.

    A lock shows that the save is running. The system releases the lock when the process ends. So
    the next save finds the temporary files of a killed save, and removes them at once. It removes
    the lock file of the killed save only when its own files are in place: until then, the lock file
    tells readers that both a single file and an index of one model may exist.
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
            # If a save fails while both models are in place, the lock file stays, as after a kill.
            if not stage.in_doubt:
                _remove([stage.lock])


def is_staged(target: Path) -> bool:
    """Return whether a save of this name is running, or was killed."""
    return any(True for _ in _locks(target))


@contextmanager
def exclusive(target: Path) -> Iterator[bool]:
    """Hold a lock, so that no other save of the same name moves files.

    Yields:
        True; False if the system has no locks.

    Raises:
        ParseError: another save holds the lock for a minute, or the lock file cannot be opened.
    """
    path = _beside(target, "moving")
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        try:
            file = open(path, "ab", opener=_without_harm)  # noqa: SIM115  it is closed below
        except OSError as error:
            if not os.path.lexists(path):
                raise
            message = f"cannot lock {shown(path)}: {error.strerror or error}"
            raise ParseError(None, message, "remove it") from error
        with file:
            # Another save may have removed the file before we locked it.
            if (locked := _lock(file)) is not False and _is_at(file, path):
                try:
                    yield bool(locked)
                finally:
                    # Remove the file while it is locked: a forked process may keep the lock.
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
    """Lock a file, and return whether it worked; None if the system has no locks."""
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
    # Use a digest: the name with a prefix and a suffix may exceed the system's limit.
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:12]


def _locks(target: Path) -> Iterator[str]:
    """Yield the lock files of saves that are running or were killed."""
    start = f"{_beside(target, 'saving')}-"
    with suppress(OSError):
        yield from (path for path in _beginning(start) if "-" not in path[len(start) :])


def _files(lock: str) -> list[str]:
    """Return the temporary files of the save that owns a lock."""
    return _beginning(f"{lock}-")


def _beginning(path: str) -> list[str]:
    """Return the paths in a folder that begin with a path."""
    folder, start = os.path.split(path)
    names = os.listdir(folder or os.curdir)
    return [os.path.join(folder, name) for name in names if name.startswith(start)]


def _locked(target: Path, stack: ExitStack) -> Staging | None:
    """Make a new lock; None if another save removed the file before we locked it."""
    path = f"{_beside(target, 'saving')}-{secrets.token_hex(4)}"
    file = stack.enter_context(open(path, "xb"))  # noqa: SIM115  the stack closes it
    if _lock(file) is False or not _is_at(file, path):
        return None
    return Staging(path, os.fstat(file.fileno()).st_mode & 0o777)


def _abandoned(target: Path) -> Iterator[str]:
    """Yield the lock files of killed saves, each locked while the caller handles it."""
    for path in _locks(target):
        # The file may be gone by now, or belong to another user. Open it for writing, because
        # network file systems lock only such files.
        with suppress(OSError), open(path, "r+b", opener=_without_harm) as file:
            if _lock(file) and _is_at(file, path):
                yield path


def _remove(paths: Iterable[str]) -> None:
    # Skip files that cannot be removed now: the next save removes them. Callers list the lock file
    # last, because the next save finds the others by it.
    for path in paths:
        with suppress(OSError):
            os.unlink(path)
