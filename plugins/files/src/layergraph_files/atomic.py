"""Files that are there as a whole, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from layergraph_files.paths import expect_regular
from layergraph_files.staging import Staging, exclusive, staging

Obsolete = Callable[[Collection[str], bool], Iterable[Path]]
"""By the names of the new files, and by whether there are locks, the old files that go."""


class Written:
    """Files that take the places of others all together, at the end.

    Args:
        stage: where they are until then, so that the old ones stay.
        target: the path of the model.
    """

    def __init__(self, stage: Staging, target: Path) -> None:
        self._stage = stage
        self._target = target
        self._files: dict[str, str] = {}

    @contextmanager
    def file(self, name: str) -> Iterator[BinaryIO]:
        """A new file, to be written; it is on the disk when the context ends.

        Args:
            name: its name in the folder of the target.
        """
        if name != self._target.name:
            _expect_replaceable(self._target.with_name(name))
        with self._stage.file() as file:
            self._files[name] = self._stage.files[-1]
            yield file
            file.flush()
            os.fsync(file.fileno())

    def finish(self, obsolete: Obsolete) -> None:
        """Put the files in their places, in the order in which they were written.

        Where there are several, the last one tells which the others are: it has to be the last on
        the disk as well, but for files that are removed.
        """
        folder = self._target.parent
        names = list(self._files)
        with exclusive(self._target) as locked:
            old = list(obsolete(names, locked))
            # A link that leads nowhere is there, too.
            new = [name for name in names if not os.path.lexists(os.path.join(folder, name))]
            try:
                for name in names[:-1]:
                    self._place(name)
                if len(names) > 1:
                    _sync(folder)
                self._stage.in_doubt = bool(old)
                self._place(names[-1])
            except OSError:
                for name in new:
                    (folder / name).unlink(missing_ok=True)
                self._stage.in_doubt = False
                raise
            if old:
                _sync(folder)
            for path in old:
                path.unlink(missing_ok=True)
            self._stage.in_doubt = False

    def _place(self, name: str) -> None:
        source, path = self._files[name], os.path.join(os.path.dirname(self._target), name)
        mode = self._stage.mode
        with suppress(OSError):  # nothing is there, or a link that leads nowhere
            there = os.stat(path).st_mode
            if stat.S_ISREG(there):
                mode = there & 0o777
        os.chmod(source, mode)
        os.replace(source, path)


@contextmanager
def writing(target: Path, obsolete: Obsolete) -> Iterator[Written]:
    """Write files that take the places of others if nothing fails.

    Args:
        target: the path of the model.
        obsolete: tells what to remove when the new files are in their places.
    """
    _expect_replaceable(target)
    obsolete((), False)  # it may refuse
    with staging(target) as stage:
        written = Written(stage, target)
        yield written
        written.finish(obsolete)


def _expect_replaceable(path: Path) -> None:
    """Raise for what is neither a file nor a link: a device would be gone, a folder stays."""
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            expect_regular(mode)


def _sync(folder: Path) -> None:
    """Let the names of a folder's files reach the disk, where the system has a way to say so."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
