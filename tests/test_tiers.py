from pathlib import Path

import pytest
from tiers import EVERYDAY, SLOW_ON_JAX, WHOLE_ON_JAX

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("name", sorted({*EVERYDAY, *WHOLE_ON_JAX}))
def test_what_is_named_is_there(name):
    """Else a test that gets a new name would run whole, and nobody would know."""
    file, function = name.split("::")
    assert f"def {function}(" in (FOLDER / file).read_text(encoding="utf-8")


def test_so_are_the_files():
    assert all((FOLDER / name).exists() for name in SLOW_ON_JAX)
