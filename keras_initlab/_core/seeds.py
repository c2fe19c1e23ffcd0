"""One seed per variable, from a base seed and the variable's position.

Position in the model decides, never the automatic name: `dense_3` in one session
is `dense_7` in the next, the third kernel stays the third kernel.
"""

from __future__ import annotations

import random

import numpy as np

# Keras hands seeds to all backends as int32.
_LARGEST = 2**31 - 1


def derive(base: int, *position: int) -> int:
    """Returns the seed for one position under a base seed.

    Different positions give independent streams (NumPy's `SeedSequence` hashes base
    and position together), the same position always the same seed.

    Args:
        base: the base seed, a non-negative int.
        *position: one or more non-negative ints that say which variable, and which
            draw within it.

    Returns:
        An int in [0, 2**31 - 1).

    Example:
        >>> derive(0, 1) == derive(0, 1), derive(0, 1) == derive(0, 2)
        (True, False)
    """
    sequence = np.random.SeedSequence(base, spawn_key=position)
    return int(sequence.generate_state(1, np.uint64)[0] % _LARGEST)


def fresh() -> int:
    """Returns a base seed that `keras.utils.set_random_seed` makes repeatable."""
    return random.randrange(_LARGEST)  # Keras draws its default seeds from here too.
