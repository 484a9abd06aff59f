"""Random graphs with conditions: on one level and on several, the same nodes run in one order."""

from __future__ import annotations

import itertools
import random

import pytest
from torch import fx

import layergraph as lg
from core.tests.conditional import call, choose, composite, function, given, ir_of, returns
from layergraph.ir import Ref, check
from layergraph.testing import bitwise_equal

LOG = Ref("log")


class _Program:
    """A random implementation that logs which of its nodes run."""

    def __init__(self, chance, name, callees):
        self._chance = chance
        self._name = name
        self._callees = callees
        self._names = (f"n{number}" for number in itertools.count())
        self.nodes = given("log", "x", "c", "d")
        self._values = ["x", "c"]
        # The names of values that are True, False or None.
        self._conditions = ["c", "d"]
        for _ in range(chance.randrange(4, 12)):
            chance.choice([self._value, self._item, self._decide, self._choose, self._call])()
            self._note()
        self.nodes.append(returns(self._result()))

    def _when(self):
        if self._chance.random() < 0.4:
            return None
        return Ref(self._chance.choice(self._conditions)), self._chance.random() < 0.5

    def _any(self):
        kinds = [
            lambda: Ref(self._chance.choice(self._values)),
            lambda: self._chance.choice([1, None]),
        ]
        return self._chance.choice([kinds[0], kinds[0], kinds[1]])()

    def _condition(self):
        return self._chance.choice(self._conditions)

    def _add(self, node, *kinds):
        self.nodes.append(node)
        for kind in kinds:
            kind.append(node.name)

    def _note(self):
        text = f"{self._name}.{next(self._names)}"
        made = function(
            next(self._names), "operator.iadd", LOG, [text, self._any()], when=self._when()
        )
        self._add(made)

    def _value(self):
        parts = (self._any(), (self._any(), 2), self._any())
        made = function(
            next(self._names), "layergraph.choose", True, parts, None, when=self._when()
        )
        self._add(made, self._values)

    def _item(self):
        parts, at = (self._any(), (self._any(),), self._any()), self._chance.randrange(3)
        made = function(next(self._names), "operator.getitem", parts, at, when=self._when())
        self._add(made, self._values)

    def _decide(self):
        value, expected = self._any(), self._chance.choice([None, 1])
        made = function(
            next(self._names),
            "layergraph.holds",
            "assume",
            value,
            expected,
            "here",
            when=self._when(),
        )
        self._add(made, self._values, self._conditions)

    def _choose(self):
        ways = Ref(self._condition()), Ref(self._condition())
        made = choose(next(self._names), self._condition(), *ways, when=self._when())
        self._add(made, self._values, self._conditions)

    def _call(self):
        if not self._callees:
            return
        callee, when = self._chance.choice(self._callees), self._when()
        told = self._chance.choice([Ref(self._condition()), Ref(self._condition()), True, None])
        given_ = LOG, self._any(), told, Ref(self._condition())
        made = call(next(self._names), callee, *given_, when=when)
        self._add(made, self._values)
        for at in range(self._chance.randrange(3)):
            item = function(next(self._names), "operator.getitem", Ref(made.name), at, when=when)
            # The item of a call has the condition of the call.
            self._add(item, self._values)

    def _result(self):
        return (self._any(), self._any(), (self._any(), 3))


def _program(seed):
    chance = random.Random(seed)
    names = ["h", "g", "f"]
    others = [
        composite(name, *_Program(chance, name, names[:index]).nodes)
        for index, name in enumerate(names)
    ]
    # The root calls all implementations, so that each has a parent.
    root = _Program(chance, "root", names)
    tail = [call(f"all_{name}", name, LOG, Ref("x"), Ref("d"), Ref("c")) for name in names]
    nodes = [*root.nodes[:-1], *tail, root.nodes[-1]]
    return ir_of(*nodes, others=others)


@pytest.mark.parametrize("seed", range(60))
def test_the_same_nodes_run_on_one_level(seed):
    ir = _program(seed)
    check(ir)
    flat = ir.flatten()
    check(flat)
    model, one = lg.to_torch(ir), lg.to_torch(flat)
    runs = [model, one, fx.Interpreter(one).run]
    for way in itertools.product([True, False, None], repeat=2):
        found = []
        for run in runs:
            log = []
            found.append((run(log, "x", *way), log))
        assert bitwise_equal(found[1], found[0]), (way, str(ir), str(flat))
        assert bitwise_equal(found[2], found[0])
