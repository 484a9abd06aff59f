"""The command line under its former name; it is the distribution ``layergraph-cli`` now."""

from __future__ import annotations

import importlib
import sys

try:
    _app = importlib.import_module("layergraph_cli.app")
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith("layergraph_cli"):
        raise
    raise ModuleNotFoundError(
        "the command line is not installed: pip install layergraph-cli", name=error.name
    ) from error
sys.modules[f"{__name__}.app"] = _app
sys.modules[__name__] = sys.modules["layergraph_cli"]
