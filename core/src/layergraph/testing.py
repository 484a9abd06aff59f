"""The tests for a plugin's layers, under the name that plugins import.

The distribution ``layergraph-tools`` has them, in ``layergraph_tools.testing``.
"""

from __future__ import annotations

import sys

from layergraph.elsewhere import imported_module

sys.modules[__name__] = imported_module("layergraph_tools.testing", __name__)
