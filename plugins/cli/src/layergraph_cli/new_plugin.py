"""Make the package of a new plugin from the templates."""

from __future__ import annotations

import importlib.resources
import importlib.util
import keyword
import re
import sys
import tempfile
from pathlib import Path
from string import Template

from layergraph.errors import LayergraphError
from layergraph.layers import types_of_torch
from layergraph.plugins import BUILTIN_PREFIX, normalised

# The files of the package, and the template of each; None: the file is empty.
_FILES = {
    "pyproject.toml": "pyproject.toml.template",
    "README.md": "README.md.template",
    "src/$package/__init__.py": "__init__.py.template",
    "src/$package/py.typed": None,
    "tests/test_$package.py": "test_package.py.template",
}


def create(name: str, folder: Path) -> Path:
    """Make a package with one layer and its tests. It works without changes.

    Args:
        name: the name of the distribution, as it would be on PyPI: ``acme-layers``.
        folder: the folder to put the package in.

    Returns:
        The new folder.

    Raises:
        LayergraphError: a plugin cannot have this name, or the folder contains a file of this name
            or is not writable. The function then writes nothing.
    """
    fields = _fields(name)
    target = folder / name
    if target.exists() or target.is_symlink():
        raise LayergraphError(f"{target} exists already; choose another name or folder")
    try:
        # Write to a temporary folder and rename it, so that a failure leaves no partial package.
        with tempfile.TemporaryDirectory(prefix=".new-plugin-", dir=folder) as aside:
            made = Path(aside, name)
            for path, source in _FILES.items():
                file = made / Template(path).substitute(fields)
                file.parent.mkdir(parents=True, exist_ok=True)
                text = "" if source is None else Template(_template(source)).substitute(fields)
                file.write_text(text, encoding="utf-8", newline="\n")
            made.rename(target)
    except OSError as error:
        raise LayergraphError(
            f"{target}: it cannot be written: {error.strerror or error}; choose another folder"
        ) from error
    return target


def _template(name: str) -> str:
    return importlib.resources.files(__package__).joinpath("template", name).read_text("utf-8")


def _fields(name: str) -> dict[str, str]:
    """Return the values that the templates insert for the name of a plugin.

    Raises:
        LayergraphError: a plugin cannot have this name.
    """
    if not re.fullmatch(r"[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]", name):
        raise _refused(name, "is not the name of a distribution", "use letters, digits and hyphens")
    distribution = normalised(name)
    package = distribution.replace("-", "_")
    if f"{distribution}-".startswith(BUILTIN_PREFIX):
        raise _refused(name, "is reserved for the built-in plugins")
    if not package.isidentifier() or keyword.iskeyword(package):
        raise _refused(name, f"would make a package {package!r}, which Python cannot import")
    if package in sys.stdlib_module_names or _is_there(package):
        raise _refused(name, f"would make a package {package!r}, and hide the installed one")
    if package in types_of_torch():
        raise _refused(name, f"would name its layer {package!r}, as a layer of torch")
    cls = "".join(part.capitalize() for part in package.split("_"))
    return {"name": name, "distribution": distribution, "package": package, "cls": cls}


def _is_there(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # a folder has no origin


def _refused(name: str, reason: str, cure: str = "") -> LayergraphError:
    cure = cure or f"put the name of your project before it, as in 'acme-{name}'"
    return LayergraphError(f"{name!r} {reason}; {cure}")
