"""Families on which constants may be chosen, and those that only report.

A constant that is chosen on a network tells nothing of it. The rule looks at nothing
but the family's name: neither at other families nor at any result.
"""

from __future__ import annotations

import zlib


def is_fitted(family):
    """Whether constants may be chosen on this family."""
    return zlib.crc32(family.encode()) % 2 == 0
