"""The command line under its former name; the distribution ``layergraph-cli`` has it."""

from __future__ import annotations

import sys

from layergraph.elsewhere import imported_module

sys.modules[f"{__name__}.app"] = imported_module("layergraph_cli.app", "layergraph.cli")
sys.modules[__name__] = sys.modules["layergraph_cli"]
