"""Files that are there as a whole, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class Written:
    """Files that take the places of others all together, at the end.

    They are written beside those that they replace, so that until then the old ones stay.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[Path, Path]] = []
        self._obsolete: list[Path] = []

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove files at the end, when all others are in their places."""
        self._obsolete += paths

    @contextmanager
    def file(self, path: Path) -> Iterator[BinaryIO]:
        """A new file, to be written; it is on the disk when the context ends.

        Args:
            path: where it is to be in the end.
        """
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        self._pending.append((temporary, path))
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Put the files in their places, in the order in which they were written.

        Where there are several, the last one tells which the others are: it has to be the last on
        the disk as well, but for files that are removed.
        """
        new = [path for _, path in self._pending if not path.exists()]
        try:
            for number, (temporary, path) in enumerate(self._pending, 1):
                with suppress(FileNotFoundError):
                    temporary.chmod(path.stat().st_mode & 0o777)
                if 1 < number == len(self._pending):
                    _sync(path.parent)
                temporary.replace(path)
        except OSError:
            for path in new:
                path.unlink(missing_ok=True)
            raise
        self._pending = []
        for folder in {path.parent for path in self._obsolete}:
            _sync(folder)
        for path in self._obsolete:
            path.unlink(missing_ok=True)

    def give_up(self) -> None:
        """Remove what has not taken its place."""
        for temporary, _ in self._pending:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing() -> Iterator[Written]:
    """Write files that take the places of others if nothing fails."""
    written = Written()
    with ExitStack() as stack:
        stack.callback(written.give_up)
        yield written
        written.finish()


def _sync(folder: Path) -> None:
    """Let the names of a folder's files reach the disk, where the system has a way to say so."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
