"""The file of an index, an SQLite database.

An index in use is in memory, and a save replaces the file at once. So several processes may use one
file at the same time, and a process that is killed leaves the old file intact.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from layergraph.errors import FileError
from layergraph_files.atomic import writing
from layergraph_files.parse_errors import reading
from layergraph_files.paths import expect_regular, status
from layergraph_index.fingerprint import VERSION

_APPLICATION = 0x4C474958
_TABLES = """
CREATE TABLE files (
    path PRIMARY KEY, time INTEGER, size INTEGER, structure INTEGER, error TEXT
) WITHOUT ROWID;
CREATE INDEX files_by_structure ON files (structure);
CREATE TABLE structures (
    id INTEGER PRIMARY KEY, text TEXT UNIQUE, fingerprint TEXT, named TEXT
);
CREATE TABLE blocks (
    structure INTEGER, fingerprint TEXT, name TEXT, type TEXT,
    count INTEGER CHECK (typeof(count) = 'integer'),
    PRIMARY KEY (structure, fingerprint)
) WITHOUT ROWID;
CREATE INDEX blocks_by_fingerprint ON blocks (fingerprint)
"""
# SQLite stores these statements in the file, so we recognise our files by comparing them.
_SCHEMA = [" ".join(each.split()) for each in _TABLES.split(";")]


def restored(file: Path) -> sqlite3.Connection:
    """Return an index in memory: that of the file, or a new one if this version cannot read it.

    Raises:
        FileError: the path is not a regular file, or the file is a database of another program.
        sqlite3.Error: the file is not a database, or is damaged.
    """
    with reading(file):
        there = status(file)
        if there is not None:
            expect_regular(there.st_mode)
    db = sqlite3.connect(":memory:")
    try:
        if there is None or not _restore(file, db):
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _restore(file: Path, db: sqlite3.Connection) -> bool:
    """Copy the index in a file into memory, and return whether there is one.

    The file may come from an attacker. Open it as immutable: otherwise, SQLite looks for a journal
    beside the file, which may name any file to delete. Accept our schema only, because views and
    triggers are code.
    """
    uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as stored:
        application = _number(stored, "PRAGMA application_id")
        schema = [sql for (sql,) in stored.execute("SELECT sql FROM sqlite_master") if sql]
        if schema and application != _APPLICATION:
            raise FileError(
                f"{str(file)!r} is a database of another program; give another file for the index"
            )
        if schema != _SCHEMA or _number(stored, "PRAGMA user_version") != VERSION:
            return False
        stored.backup(db)
    # Check the copy in memory, because SQLite checks less on a read-only connection.
    if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("it is damaged")
    return True


def _number(db: sqlite3.Connection, statement: str) -> int:
    found: int = db.execute(statement).fetchone()[0]
    return found


def save(db: sqlite3.Connection, file: Path) -> None:
    """Write an index in memory to a file atomically. A link is replaced, not its target.

    Raises:
        FileError, sqlite3.Error: the file cannot be written.
    """
    name = file.name
    with (
        reading(file),
        writing(file, lambda _names, _alone: ()) as written,
        written.file(name),
        closing(sqlite3.connect(written.staged(name))) as stored,
    ):
        stored.execute("PRAGMA journal_mode = OFF")
        db.backup(stored)
