# SPDX-License-Identifier: Apache-2.0
"""Which found events are true ones. Used by evaluate.py and the live tests; standard library only.

An event is (start, end, text), times in seconds.
"""


def matched(found, true, slack=1.0):
    """How many of the found events are true ones: same text, both ends within the slack, each true one used once."""
    left, n = list(true), 0
    for s, e, t in found:
        hit = next((x for x in left if x[2] == t and abs(x[0] - s) <= slack and abs(x[1] - e) <= slack), None)
        if hit:
            left.remove(hit)
            n += 1
    return n
