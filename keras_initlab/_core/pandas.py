"""pandas, which is loaded only where a frame is asked for."""

from __future__ import annotations

from typing import Any

from .errors import not_installed


def load_pandas(instead: str) -> Any:
    """Returns pandas.

    Args:
        instead: what shows the same without it.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise not_installed("A frame needs pandas.", "frame", instead) from error
    return pd
