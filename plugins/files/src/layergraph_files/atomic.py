"""Atomic writes: the files of a save replace older ones all together, or not at all."""

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
"""A function that returns the old files to remove. Its arguments are the names of the new files,
and a bool: True if no other save is running."""


class Written:
    """The files of a save, which replace older files when the save ends.

    Args:
        stage: the temporary files.
        target: the path of the model.
    """

    def __init__(self, stage: Staging, target: Path) -> None:
        self._stage = stage
        self._target = target
        self._files: dict[str, str] = {}

    @contextmanager
    def file(self, name: str) -> Iterator[BinaryIO]:
        """Open a new file for writing. When the context ends, its content is on the disk.

        Args:
            name: its final name in the folder of the target.
        """
        if name != self._target.name:
            _expect_replaceable(self._target.with_name(name))
        with self._stage.file() as file:
            self._files[name] = self._stage.files[-1]
            yield file
            file.flush()
            os.fsync(file.fileno())

    def staged(self, name: str) -> str:
        """Return the temporary path of a file, to which other processes may write until `finish`.

        Args:
            name: its final name.
        """
        return self._files[name]

    def finish(self, obsolete: Obsolete) -> None:
        """Move the files to their final names, in the order in which they were written.

        If there are several files, the last one is the index, which names the others. The index
        must reach the disk after the others, and before old files are removed.

        Args:
            obsolete: the function that lists the old files to remove.
        """
        folder = self._target.parent
        names = list(self._files)
        with exclusive(self._target) as locked:
            old = list(obsolete(names, locked))
            # lexists, because a broken link counts as a file that was there before.
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
        with suppress(OSError):  # there is no file, or a broken link
            there = os.stat(path).st_mode
            if stat.S_ISREG(there):
                mode = there & 0o777
        os.chmod(source, mode)
        os.replace(source, path)


@contextmanager
def writing(target: Path, obsolete: Obsolete) -> Iterator[Written]:
    """Write the files of a save. When the context ends without an error, they replace older files.

    Args:
        target: the path of the model.
        obsolete: the function that lists the old files to remove.
    """
    _expect_replaceable(target)
    obsolete((), False)  # it may raise, so call it before writing
    with staging(target) as stage:
        written = Written(stage, target)
        yield written
        written.finish(obsolete)


def _expect_replaceable(path: Path) -> None:
    """Raise if a path is neither a file nor a link: os.replace would remove a device."""
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            expect_regular(mode)


def _sync(folder: Path) -> None:
    """Flush the entries of a folder to the disk, if the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
