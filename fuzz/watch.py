"""Looks at what a file makes this process do: the events that Python audits, and torch's modes.

An audit hook cannot be taken away again, so that there is one, which looks only while it is asked
to.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

# What reads, starts or changes something outside of the process, or runs code.
_EVENTS = (
    "builtins. code. compile ctypes. exec fcntl. ftplib. glob. http. import marshal. mmap. open "
    "os. pickle. pty. setopencodehook shutil. signal. smtplib. socket. sqlite3. subprocess. sys. "
    "syslog. tempfile. urllib. webbrowser. winreg."
).split()
# Python asks for these itself, as it imports what torch has put off, or shows a warning.
_HARMLESS = frozenset(
    "builtins.id code.__new__ marshal.loads marshal.load os.listdir os.scandir sys._getframe "
    "sys._getframemodulename sys.excepthook sys.unraisablehook sys.settrace sys.setprofile "
    "ctypes.dlsym ctypes.addressof mmap.__new__".split()
)
# What torch imports when it is first needed.
_PACKAGES = frozenset({*sys.stdlib_module_names, "torch", "layergraph", "numpy", "sympy", "mpmath"})
_STDLIB_REFUSED = frozenset("ctypes os pty runpy shutil socket subprocess".split())
_CODE = ("<eval_with_key", "<layergraph", "<string>", "<frozen", "<fx")
# What one module of layergraph does, and nothing else.
_OWN = {
    "compile": "/layergraph/ir2torch/code_check.py",
    "ctypes.cdata": "/layergraph/tensors/memory.py",
    "marshal.dumps": "/layergraph_files/graph_reader.py",
}


class Watch:
    """Notes what is not allowed.

    Args:
        folder: where files may be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._allowed = (str(folder), sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]))
        self._folder = str(folder)
        self._is_on = False
        self._found: list[str] = []
        sys.addaudithook(self._hear)

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """While it is on, what is done and changed must be what a load does and changes.

        Raises:
            AssertionError: it is not.
        """
        before = modes()
        self._is_on, self._found = True, []
        try:
            yield
        finally:
            self._is_on = False
            now = modes()
            for name, was in before.items():
                if now[name] != was:
                    self._found.append(f"{name} was {was} and is {now[name]}")
            if self._found:
                raise AssertionError("; ".join(self._found[:5]))

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if not self._is_on or event in _HARMLESS or not event.startswith(tuple(_EVENTS)):
            return
        self._is_on = False  # What is done here is not meant.
        try:
            if not self._is_allowed(event, args):
                self._found.append(f"{event} {str(args)[:200]}")
        finally:
            self._is_on = True

    def _is_allowed(self, event: str, args: tuple[object, ...]) -> bool:
        first = args[0] if args else None
        if event in ("os.putenv", "os.unsetenv"):
            # Asking for the installed plugins keeps those of others from being loaded meanwhile.
            return first == b"PYDANTIC_DISABLE_PLUGINS"
        if event == "import":
            return str(first) in sys.modules or self._may_import(str(first).partition(".")[0])
        if event == "open":
            return self._may_open(first, args[1] if len(args) > 1 else None)
        home = _home(sys._getframe(2))
        if event in _OWN and home.endswith(_OWN[event]):
            return True
        if event in ("exec", "compile"):
            # A text that a graph executes has a name of this kind, too.
            if not (home.endswith(".py") or home.startswith("<frozen")):
                return False
            name = getattr(first, "co_filename", None) or (args[1] if len(args) > 1 else "")
            text = str(name)
            return text.startswith(_CODE) or (text.endswith(".py") and self._is_within(text))
        return False

    def _may_import(self, package: str) -> bool:
        """Whether what asks for a package is code in a file, which has put that off."""
        home = _home(sys._getframe(3))
        if package in ("torch", "layergraph"):
            return True
        is_installed = home.startswith((sys.prefix, sys.base_prefix)) and home.endswith(".py")
        return is_installed and package in _PACKAGES and package not in _STDLIB_REFUSED

    def _may_open(self, path: object, mode: object) -> bool:
        if isinstance(path, int) or path is None:
            return True
        text = os.fsdecode(path) if isinstance(path, str | bytes) else str(path)
        if text.startswith(self._folder):
            return True
        is_code = text.endswith((".py", ".pyc", ".so")) and self._is_within(text)
        return is_code and mode in (None, "r", "rb")

    def _is_within(self, path: str) -> bool:
        return path.startswith(self._allowed)


def _home(frame: FrameType) -> str:
    """The file whose code asks for something: not the importer, nor the parser of Python."""
    while frame.f_back is not None and _is_between(frame.f_code.co_filename):
        frame = frame.f_back
    return frame.f_code.co_filename


def _is_between(file: str) -> bool:
    return "importlib" in file or file.endswith("/ast.py")


def modes() -> dict[str, object]:
    """The modes of torch and Python that a call must leave as they are."""
    return {
        "the gradients' mode": torch.is_grad_enabled(),
        "the inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "the dtype of autocast": torch.get_autocast_dtype("cpu"),
        "the cache of autocast": torch.is_autocast_cache_enabled(),
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "the number of threads": torch.get_num_threads(),
        "the stack of modes": torch._C._len_torch_function_stack(),
        "Python's recursion": sys.getrecursionlimit(),
        "the folder": str(Path.cwd()),
        "the environment": len(os.environ),
    }
