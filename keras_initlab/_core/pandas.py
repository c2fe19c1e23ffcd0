"""pandas, which is loaded only where a frame is asked for."""

from __future__ import annotations

from typing import Any

from .errors import message


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
        raise ImportError(
            message(
                "A frame needs pandas.",
                "an environment without it",
                f'Install it with `pip install "keras_initlab[frame]"`, or use '
                f"`{instead}`.",
            )
        ) from error
    return pd
