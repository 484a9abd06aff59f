"""The tests for a plugin's layers, under the name that plugins import.

The distribution ``layergraph-tools`` has them, in ``layergraph_tools.testing``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from layergraph.elsewhere import imported_module

if TYPE_CHECKING:
    from layergraph_tools.testing import *  # noqa: F403 the same names

sys.modules[__name__] = imported_module("layergraph_tools.testing", __name__)
