"""An index of the models in a folder, in one SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from layergraph.errors import FileError, LayergraphError, first_line
from layergraph_index import storage
from layergraph_index.reading import Block, Structure, model_files, structure_of, text_digest

NAME = ".layergraph-index.db"
"""The name of the index in the folder that it describes."""


@dataclass(frozen=True, slots=True)
class Update:
    """The outcome of an update of an index.

    Attributes:
        files: the number of files of models.
        read: the number of files that are new or have changed.
        parsed: the number of structures that were parsed. Files with the same text share one.
        removed: the number of files that are gone.
    """

    files: int
    read: int
    parsed: int
    removed: int


@dataclass(frozen=True, slots=True)
class Group:
    """Files of models with the same structure.

    Attributes:
        fingerprint: the fingerprint of these models.
        paths: the files, relative to the folder.
    """

    fingerprint: str
    paths: list[str]


@dataclass(frozen=True, slots=True)
class Relative:
    """A model that shares blocks with another one.

    Attributes:
        path: the file of this model, relative to the folder.
        is_same: whether the two models have the same structure.
        blocks: the common blocks, with their names in this model.
    """

    path: str
    is_same: bool
    blocks: list[Block]


class Index:
    """The fingerprints of the models in a folder and below.

    Args:
        folder: the folder.
        file: the file of the index; by default a hidden one in the folder.

    Raises:
        FileError: the folder or the index cannot be used.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_index import Index
        >>> for name in ("one", "other"):
        ...     lg.save(lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3))), f"{name}.json")
        >>> with Index(".") as index:
        ...     _ = index.update()
        ...     print([group.paths for group in index.groups()])
        [['one.json', 'other.json']]
    """

    def __init__(self, folder: str | Path, file: str | Path | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileError(f"{str(folder)!r} is not a folder; give a folder with files of models")
        self.file = self.folder / NAME if file is None else Path(file)
        with self._errors():
            self._db = storage.restored(self.file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file of the index."""
        self._db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise FileError(
                f"{str(self.file)!r}: the index cannot be used ({error}); delete it, or give "
                "another file for it"
            ) from error

    # --- updates ---

    def update(self) -> Update:
        """Read the files that are new, or whose size or modification time has changed.

        A file that cannot be read gets an entry with the error.

        Raises:
            FileError: the folder or the index cannot be read or written.
        """
        there, unreadable = self._states()
        with self._errors(), self._db:
            rows = self._db.execute("SELECT path, time, size FROM files")
            known = {_path_of(path): (time, size) for path, time, size in rows}
            gone = [path for path in known if path not in there]
            self._db.executemany(
                "DELETE FROM files WHERE path = ?", [(_stored_path(each),) for each in gone]
            )
            changed = [path for path, state in there.items() if known.get(path) != state]
            for path, error in unreadable.items():
                self._store(path, there[path], None, error)
            texts: dict[str, int] = dict(
                self._db.execute("SELECT text, id FROM structures WHERE text IS NOT NULL")
            )
            waiting: dict[str, list[str]] = {}
            for path in changed:
                if path not in unreadable:
                    self._sort(path, there[path], texts, waiting)
            parsed = self._parse(waiting, there)
            self._db.execute(
                "DELETE FROM structures WHERE id NOT IN "
                "(SELECT structure FROM files WHERE structure IS NOT NULL)"
            )
            self._db.execute(
                "DELETE FROM blocks WHERE structure NOT IN (SELECT id FROM structures)"
            )
        if changed or gone or not self.file.exists():
            with self._errors():
                storage.save(self._db, self.file)
        return Update(len(there), len(changed), parsed, len(gone))

    def _states(self) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
        """Return the modification time and size of each file, and the errors of others, by path."""
        states, unreadable = {}, {}
        try:
            for path, found in model_files(self.folder):
                name = str(path.relative_to(self.folder))
                if isinstance(found, OSError):
                    states[name] = 0, 0
                    unreadable[name] = f"{path}: {found.strerror}"
                else:
                    states[name] = found.st_mtime_ns, found.st_size
        except OSError as error:
            raise FileError(f"{str(self.folder)!r} cannot be read: {error}") from error
        return states, unreadable

    def _sort(
        self,
        path: str,
        state: tuple[int, int],
        texts: dict[str, int],
        waiting: dict[str, list[str]],
    ) -> None:
        """Store a file whose structure is known or unreadable; put other files into ``waiting``."""
        try:
            text = text_digest(self.folder / path)
        except (LayergraphError, OSError) as error:
            self._store(path, state, None, first_line(error))
            return
        if text in texts:
            self._store(path, state, texts[text])
        else:
            waiting.setdefault(text or f":{path}", []).append(path)

    def _parse(self, waiting: dict[str, list[str]], states: dict[str, tuple[int, int]]) -> int:
        parsed = 0
        for text, paths in waiting.items():
            shared = None if text[0] == ":" else text
            number = None
            for path in paths:
                error = ""
                if number is None:
                    # If the structure cannot be read, each file gets the error with its own path.
                    parsed += 1
                    structure = structure_of(self.folder / path, shared)
                    error = structure.error
                    number = None if error else self._store_structure(structure, shared)
                self._store(path, states[path], number, error)
        return parsed

    def _store(
        self, path: str, state: tuple[int, int], structure: int | None, error: str = ""
    ) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
            (_stored_path(path), *state, structure, _stored(error)),
        )

    def _store_structure(self, structure: Structure, text: str | None) -> int:
        cursor = self._db.execute(
            "INSERT INTO structures (text, fingerprint, named) VALUES (?, ?, ?)",
            (text, structure.fingerprint, structure.named),
        )
        number = cursor.lastrowid or 0
        rows = [
            (number, each.fingerprint, _stored(each.name), _stored(each.type), each.count)
            for each in structure.blocks
        ]
        self._db.executemany("INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", rows)
        return number

    # --- questions ---

    def _rows(self, statement: str, *given: object) -> list[tuple[object, ...]]:
        with self._errors(), closing(self._db.execute(statement, given)) as cursor:
            return cursor.fetchall()

    def groups(self, *, names: bool = False) -> list[Group]:
        """Group the files by structure, and return the groups, the largest first.

        Args:
            names: True to count the names of modules: see :func:`layergraph.fingerprint`.
        """
        found: dict[str, list[str]] = {}
        for plain, named, path in self._rows(
            "SELECT fingerprint, named, path FROM files JOIN structures ON id = structure "
            "ORDER BY path"
        ):
            found.setdefault(str(named if names else plain), []).append(_path_of(path))
        return sorted((Group(*each) for each in found.items()), key=lambda each: -len(each.paths))

    def errors(self) -> dict[str, str]:
        """Return the error of each file that cannot be read, by path."""
        rows = self._rows("SELECT path, error FROM files WHERE error != '' ORDER BY path")
        return {_path_of(path): str(error) for path, error in rows}

    def with_block(self, fingerprint: str) -> dict[str, Block]:
        """Return the files of the models that have a block, each with the block in that model.

        Args:
            fingerprint: the fingerprint of the block. A whole model may be a block of another.
        """
        rows = self._rows(
            "SELECT path, blocks.fingerprint, name, type, count FROM files "
            "JOIN blocks ON blocks.structure = files.structure "
            "WHERE blocks.fingerprint = ? ORDER BY path",
            fingerprint,
        )
        return {_path_of(path): _block(*rest) for path, *rest in rows}

    def relatives(self, fingerprint: str, blocks: Iterable[str]) -> list[Relative]:
        """Return the models that share blocks with a model, those with the most blocks first.

        Args:
            fingerprint: the fingerprint of the model.
            blocks: the fingerprints of its blocks.
        """
        found: dict[str, list[Block]] = {}
        for digest in dict.fromkeys(blocks):
            for path, block in self.with_block(digest).items():
                found.setdefault(path, []).append(block)
        relatives = [
            Relative(path, any(each.fingerprint == fingerprint for each in shared), shared)
            for path, shared in found.items()
        ]
        return sorted(relatives, key=lambda each: (not each.is_same, -len(each.blocks), each.path))


def _stored(text: str) -> str:
    """Return a text that SQLite can store: files may contain unpaired surrogates."""
    return text.encode("utf-8", "replace").decode()


def _stored_path(path: str) -> str | bytes:
    """Return a path that SQLite can store: file names may be bytes that are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def _path_of(stored: object) -> str:
    return os.fsdecode(stored) if isinstance(stored, bytes) else str(stored)


def _block(fingerprint: object, name: object, kind: object, count: object) -> Block:
    return Block(str(fingerprint), str(name), str(kind), int(str(count)))
