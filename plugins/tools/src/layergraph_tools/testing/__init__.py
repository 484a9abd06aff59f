"""Base class of the tests of a plugin's layers.

A test class lists cases. Each check of each case is one test::

    class TestLinear(LayerTests):
        distribution = "layergraph-linear"
        classes = layers_of(torch.nn.modules.linear)
        cases = {
            "default": Case(lambda: nn.Linear(3, 2), [(5, 3)]),
            "without bias": Case(lambda: nn.Linear(3, 2, bias=False), [(5, 3)]),
        }

pytest reports them as ``TestLinear::test_behaviour[without bias]``. A failed check raises an
:class:`AssertionError` with the problem and the remedy. The checks themselves do not need pytest.

:func:`bitwise_equal` compares outputs in other tests: for ``torch.equal``, -0.0 equals 0.0.
"""

from layergraph_tools.testing.bitwise import bitwise_difference, bitwise_equal
from layergraph_tools.testing.cases import Case, layers_of
from layergraph_tools.testing.suite import LayerTests

__all__ = ["Case", "LayerTests", "bitwise_difference", "bitwise_equal", "layers_of"]
