"""The fingerprints of a file. This module imports no torch, and reads no weights."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from layergraph.errors import LayergraphError, first_line
from layergraph.gc_pause import gc_paused
from layergraph.ir import Ir
from layergraph_files.container import read_header
from layergraph_files.limits import DEFAULT_LIMITS
from layergraph_files.load import load
from layergraph_files.parse_errors import reading
from layergraph_files.paths import open_file
from layergraph_files.reader import VALUE_PREFIX
from layergraph_files.versions import FORMAT
from layergraph_index.fingerprint import fingerprints


@dataclass(frozen=True, slots=True)
class Block:
    """The implementations of a model that share a fingerprint.

    Attributes:
        fingerprint: the fingerprint.
        name: the name of the first implementation.
        type: the type of the first implementation.
        count: the number of implementations.
    """

    fingerprint: str
    name: str
    type: str
    count: int


@dataclass(frozen=True, slots=True)
class Structure:
    """A structure that files may share.

    Attributes:
        fingerprint: the fingerprint of the model; empty if the structure cannot be read.
        named: the fingerprint that also counts names.
        blocks: the composites and layers of the model.
        error: the error if the structure cannot be read; otherwise empty.
    """

    fingerprint: str = ""
    named: str = ""
    blocks: tuple[Block, ...] = ()
    error: str = ""


def text_digest(path: Path) -> str | None:
    """Return a digest of the text that describes a structure; None if only a full read finds it.

    Files with equal digests have equal structures. So a structure that fine-tuned copies of a model
    share is parsed once.

    Raises:
        LayergraphError, OSError: the file cannot be read.
    """
    if path.suffix == ".json":
        return None if path.name.endswith(".index.json") else _digest_of(_text(path))
    with reading(path), open_file(path) as file:
        header = read_header(file, DEFAULT_LIMITS)
    values = any(name.startswith(VALUE_PREFIX) for name in header.tensors)
    text = header.metadata.get(FORMAT)
    return None if values or text is None else _digest_of(text.encode("utf-8", "surrogatepass"))


def _text(path: Path) -> bytes:
    with reading(path), open_file(path) as file:
        return file.read(DEFAULT_LIMITS.text_bytes + 1)


def _digest_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


@gc_paused()
def structure_of(path: Path, text: str | None) -> Structure:
    """Return the structure of the model in a file, or the reason why it has none.

    Args:
        path: the file.
        text: its :func:`text_digest`.
    """
    try:
        structure = _structure(load(path))
        if text is not None and text_digest(path) != text:
            return Structure(error="another program writes it; update the index again")
    except LayergraphError as error:
        return Structure(error=first_line(error))
    except Exception as error:  # no error in one file may stop the update of the others
        return Structure(error=f"{type(error).__name__}: {first_line(error)}")
    return structure


def _structure(ir: Ir) -> Structure:
    plain = fingerprints(ir)
    named = fingerprints(ir, names=True)
    blocks: dict[str, list[str]] = {}
    for name, digest in plain.items():
        blocks.setdefault(digest, []).append(name)
    return Structure(
        plain[ir.root],
        named[ir.root],
        tuple(
            Block(digest, names[0], ir[names[0]].type, len(names))
            for digest, names in blocks.items()
            if ir[names[0]].nodes or ir.root in names
        ),
    )


def model_files(folder: Path) -> Iterator[tuple[Path, os.stat_result | OSError]]:
    """Yield the files of models in a folder and below, each once, with their status.

    If the system cannot return the status of a folder or a file, the error takes its place.

    Raises:
        OSError: the folder itself cannot be read.
    """
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            entries = sorted(here.iterdir())
        except FileNotFoundError:  # it was removed just now
            continue
        except OSError as error:
            if here is folder:
                raise
            yield here, error
            continue
        indexed = [each.name for each in entries if each.name.endswith(_INDEX)]
        for each in entries:
            found = _status(each)
            # A link to a folder may lead back to a folder around it.
            if isinstance(found, os.stat_result) and stat.S_ISDIR(found.st_mode):
                if not each.is_symlink():
                    pending.append(each)
            elif found is not None and _is_model(each.name, indexed):
                yield each, found


def _status(path: Path) -> os.stat_result | OSError | None:
    """Return the status of a file or folder, or the error; None for anything else."""
    try:
        found = path.stat()
    except FileNotFoundError:  # a link to nothing, or the file was removed just now
        return None
    except OSError as error:
        return error
    return found if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) else None


_INDEX = ".safetensors.index.json"
# The end of the names of shards: those of Hugging Face, and ours.
_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]{12})?\.safetensors")


def _is_model(name: str, indexed: list[str]) -> bool:
    if not name.endswith((".safetensors", ".json")):
        return False
    # A shard is a part of a model.
    return not any(
        name.startswith(model) and _SHARD.fullmatch(name, len(model))
        for model in (each.removesuffix(_INDEX) for each in indexed)
    )
