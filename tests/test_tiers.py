from pathlib import Path

from tiers import EVERYDAY, LONG, SLOW_ON_JAX, WHOLE_ON_JAX

FOLDER = Path(__file__).parent


def test_what_is_named_is_there():
    """Else a test that gets a new name would run whole, and nobody would know."""
    for name in {*EVERYDAY, *LONG, *WHOLE_ON_JAX}:
        file, function = name.split("::")
        assert f"def {function}(" in (FOLDER / file).read_text(encoding="utf-8")


def test_so_are_the_files():
    assert all((FOLDER / name).exists() for name in SLOW_ON_JAX)
