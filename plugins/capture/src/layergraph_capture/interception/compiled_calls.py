"""Functions of compiled extensions that read and write the memory of tensors.

No mode of torch sees the effect of such a function on its arguments. So we set a profile function
that sees each call of a compiled function during the run, if an extension with such functions is
loaded.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from layergraph.undo import undoing

if TYPE_CHECKING:
    from layergraph.torch2ir.tracing.tracer import Tracer

# The library of torch that an extension links to if it takes or returns Python tensors.
_LIBRARY = b"torch_python"
_SUFFIXES = tuple(EXTENSION_SUFFIXES)
_OF_TORCH = ("torch", "functorch")


@contextmanager
def compiled_calls(capture: Tracer) -> Iterator[None]:
    """Refuse calls of extensions that torch does not see, inside a ``with`` block.

    Args:
        capture: the tracer, which collects the refusals.
    """
    before = _extensions()
    if not before:
        yield
        _refuse_new(capture, before)
        return

    def watch(_: FrameType, event: str, function: Any) -> None:
        home = getattr(function, "__module__", None) if event == "c_call" else None
        if home in before and capture.is_recording():
            capture.refuse(f"{home}.{function.__name__}: {_UNSEEN}; {_REMEDY}")

    if sys.getprofile() is not None:
        capture.refuse(f"{', '.join(sorted(before))}: {_UNSEEN}, while a profiler runs; end it")
        yield
    else:
        with undoing(functools.partial(sys.setprofile, None)):
            sys.setprofile(watch)
            yield
    _refuse_new(capture, before)


_UNSEEN = "torch does not see what this compiled code does to tensors"
_REMEDY = (
    "make it an operator with torch.library.custom_op, or call it in a torch.autograd.Function"
)


def _refuse_new(capture: Tracer, before: frozenset[str]) -> None:
    for name in sorted(_extensions() - before):
        capture.refuse(f"the model imports {name} while it runs: import it before")


def _extensions() -> frozenset[str]:
    """Return the names of the loaded extensions, except torch's, whose functions take tensors."""
    # A new import becomes the last module.
    return _among(len(sys.modules), next(reversed(sys.modules))) | _built()


@functools.lru_cache(maxsize=1)
def _among(_modules: int, _newest: str) -> frozenset[str]:
    found = set()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _OF_TORCH:
            continue
        members: Any = getattr(module, "__dict__", None)
        file = members.get("__file__") if isinstance(members, dict) else None
        if isinstance(file, str) and file.endswith(_SUFFIXES) and _takes_tensors(file):
            found.add(name)
    return frozenset(found)


def _built() -> frozenset[str]:
    """Return the names of extensions that torch has built in this process, outside sys.modules."""
    builder: Any = sys.modules.get("torch.utils.cpp_extension")
    entries = builder.JIT_EXTENSION_VERSIONER.entries if builder else {}
    later = [f"{name}_v{n}" for name in entries for n in range(1, entries[name].version + 1)]
    return frozenset([*entries, *later])


@functools.cache
def _takes_tensors(file: str) -> bool:
    try:
        with Path(file).open("rb") as opened:
            start = opened.read(_EDGE)
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - _EDGE))
            return _LIBRARY in start or _LIBRARY in opened.read()
    except OSError:  # the file is gone
        return False


# A linker writes library names near the start of a file; tools that edit them append at the end.
_EDGE = 2**20
