"""What the author of a plugin subclasses to test its layers.

A test class lists cases; each check of each case is a test of its own::

    class TestLinear(LayerTests):
        distribution = "layergraph-linear"
        classes = layers_of(torch.nn.modules.linear)
        cases = {
            "default": Case(lambda: nn.Linear(3, 2), [(5, 3)]),
            "without bias": Case(lambda: nn.Linear(3, 2, bias=False), [(5, 3)]),
        }

pytest reports them as ``TestLinear::test_behaviour[without bias]``. A failed check raises
:class:`AssertionError`, which says what is wrong and what to do; pytest itself is not needed.

:func:`bitwise_equal` compares outputs in other tests: ``torch.equal`` takes -0.0 for 0.0.
"""

from layergraph_tools.testing.bitwise import bitwise_difference, bitwise_equal
from layergraph_tools.testing.cases import Case, layers_of
from layergraph_tools.testing.suite import LayerTests

__all__ = ["Case", "LayerTests", "bitwise_difference", "bitwise_equal", "layers_of"]
