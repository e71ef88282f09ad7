"""How many axes a value has, told from the operators up to it."""

from __future__ import annotations

from edgelstm.converters.recurrence.ir import Node, argument
from edgelstm.converters.recurrence.ranks import rank_of


def test_ranks_are_told_of_long_chains_and_of_values_that_are_read_twice() -> None:
    """Each operator once: two readers in each of 40 are 2^40 ways, and 3,000 in a row no recursion."""
    leaf = argument("x", shape=[None, None, 3])
    twice = leaf
    for _ in range(40):
        twice = Node("Mul", "m", [twice, Node("Tanh", "t", [twice], {}).out], {}).out
    assert rank_of(twice) == 3
    chain = leaf
    for _ in range(3000):
        chain = Node("Add", "a", [chain, leaf], {}).out
    assert rank_of(chain) == 3
