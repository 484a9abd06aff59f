"""Folders of installed distributions, as pip leaves them."""

from __future__ import annotations

import importlib.metadata
import os
import re
from pathlib import Path

from layergraph.plugins import Plugin, load_plugins

HANDLERS = """
from torch import nn
from layergraph import Implementation, hookimpl

@hookimpl({marks})
def torch_to_ir(module):
    return Implementation("linear", {{"by": {who!r}}})

@hookimpl({marks})
def ir_to_torch(implementation):
    made = nn.Linear(1, 2)
    made.by = {who!r}
    return made
"""


class Site:
    """A folder of installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(
        self,
        name: str,
        source: str = HANDLERS,
        marks: str = "",
        entry_points: tuple[str, ...] = ("plugin",),
        version: str = "1.0",
        attribute: str = "",
    ) -> None:
        lines = ["[layergraph]"]
        for entry_point in entry_points:
            who = name if entry_point == "plugin" else f"{name}:{entry_point}"
            # Tests share one interpreter: no two may import a module of the same name.
            module = re.sub(r"\W", "_", f"{self.folder.parent.name}_{name}_{entry_point}")
            code = source.format(marks=marks, who=who)
            (self.folder / f"{module}.py").write_text(code)
            lines.append(f"{entry_point} = {module}{attribute}")
        escaped = re.sub(r"\W", "_", name)
        info = self.folder / f"{escaped}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text("\n".join(lines))


def search_path(*folders: object) -> str:
    """Return PYTHONPATH with more folders at its beginning."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


def listed(*sites: Site) -> list[importlib.metadata.EntryPoint]:
    found = importlib.metadata.distributions(path=[str(site.folder) for site in sites])
    return [each for one in found for each in one.entry_points.select(group="layergraph")]


def loaded(*sites: Site) -> tuple[Plugin, ...]:
    return tuple(load_plugins(listed(*sites)))
