"""The command ``layergraph``: one file for each of its commands."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    try:
        from layergraph.cli.app import run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("rich", "typer"):
            raise
        message = f"layergraph: the command needs {missing}: pip install 'layergraph-core[cli]'"
        print(message, file=sys.stderr)  # noqa: T201 -- there is nothing else to say it with
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())
