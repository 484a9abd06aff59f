"""The folder in which a save writes its files, until they take their places."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from layergraph.files.faults import FaultError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

_LOCK = "lock"
_PATIENCE = 60.0


@dataclass
class Staging:
    """The folder in which a save writes.

    Attributes:
        folder: the folder.
        in_doubt: whether the old model and the new one are both in their places.
    """

    folder: Path
    in_doubt: bool = False


@contextmanager
def staging(target: Path) -> Iterator[Staging]:
    """A new folder beside a target, which is removed in the end with all that is in it.

    A lock tells others that its save is running. The system takes the lock from a process that
    ends, so the next save finds what a killed one left: it frees the room on the disk at once, and
    removes the folder when its own files are in their places. Until then the folder tells readers
    why there may be two forms of one model.
    """
    for abandoned in _abandoned(target):
        _empty(abandoned)
    with ExitStack() as stack:
        while (folder := _locked(target, stack)) is None:
            pass
        stage = Staging(folder)
        try:
            yield stage
            for abandoned in _abandoned(target):
                _remove(abandoned)
        finally:
            # Like a killed save, one that fails between the two leaves word of it.
            (_empty if stage.in_doubt else _remove)(folder)


def is_staged(target: Path) -> bool:
    """Return whether a save of this name is running, or was killed."""
    return any(True for _ in _folders(target))


@contextmanager
def exclusive(target: Path) -> Iterator[bool]:
    """Keep other saves of a name from moving its files; gives False where there are no locks.

    Raises:
        FaultError: another one does so all the time.
    """
    path = target.with_name(_prefix(target) + _LOCK)
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        with path.open("ab") as file:
            # Another save may have removed it before it was locked here.
            if (locked := _lock(file)) is not False and _is_at(file, path):
                try:
                    yield bool(locked)
                finally:
                    # Before the lock goes with the file: a process that was forked has that too.
                    with suppress(OSError):
                        path.unlink()
                return
        time.sleep(0.01)
    message = f"another save has been moving files for {_PATIENCE:.0f} seconds"
    raise FaultError(None, message, "try again, or save under another name")


def _is_at(file: BinaryIO, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


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


def _prefix(target: Path) -> str:
    # Of one length, because the name of the target may be as long as a name can be.
    return f".saving-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"


def _folders(target: Path) -> Iterator[Path]:
    prefix = _prefix(target)
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                yield target.parent / entry.name


def _locked(target: Path, stack: ExitStack) -> Path | None:
    """A new folder with a lock; None if another save took it for abandoned before it was locked."""
    folder = target.with_name(_prefix(target) + secrets.token_hex(4))
    folder.mkdir(mode=0o700)
    try:
        file = stack.enter_context((folder / _LOCK).open("xb"))
    except FileNotFoundError:
        return None
    is_own = _lock(file) is not False and (folder / _LOCK).exists()
    return folder if is_own else None


def _abandoned(target: Path) -> Iterator[Path]:
    """The folders that killed saves left, each locked as long as it is looked at."""
    for folder in _folders(target):
        try:
            # Network file systems lock only what is opened to be written.
            with (folder / _LOCK).open("r+b") as file:
                if _lock(file):
                    yield folder
        except FileNotFoundError:
            with suppress(OSError):
                folder.rmdir()
        except OSError:
            pass  # it belongs to another user


def _empty(folder: Path) -> None:
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name != _LOCK:
                path.unlink()


def _remove(folder: Path) -> None:
    # The next save removes what cannot be removed now. The lock is the last to go.
    _empty(folder)
    with suppress(OSError):
        (folder / _LOCK).unlink()
        folder.rmdir()
