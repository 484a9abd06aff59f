"""Run the command in a new process, with plugins."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass

COMMAND = [sys.executable, "-c", "from layergraph_cli import main; main()"]


@dataclass
class Done:
    code: int
    out: str
    err: str

    def refused(self, *said, code=2):
        """Return whether the command printed one line on standard error, and nothing else."""
        assert self.code == code, self
        assert self.out == ""
        assert self.err.startswith("layergraph: ")
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        for each in said:
            assert each in self.err


def spawn(*arguments, **options):
    """Run the command in a new process."""
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    return Done(done.returncode, done.stdout, done.stderr)


def search_path(folder):
    """Return PYTHONPATH with a folder in front."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def install(folder, name, code, entry_point="x"):
    """Install a plugin of one module into a folder, as pip does."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[layergraph]\n{entry_point} = {module}\n")
