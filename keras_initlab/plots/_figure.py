"""A figure that a notebook shows. Importing this loads matplotlib."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

_SCREEN = 96  # a browser's pixels an inch


class NotebookFigure(Figure):
    """A Figure of its own, not pyplot's: nothing global, no window, safe in threads.

    IPython knows by itself how to show only the figures of pyplot, once that has been
    imported; of any other it prints the repr. So this one brings its picture.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """The picture, and how large to show it: inches stay inches on any screen."""
        out = io.BytesIO()
        self.savefig(out, format="png", dpi=self.dpi)
        width, height = (round(_SCREEN * inches) for inches in self.get_size_inches())
        return out.getvalue(), {"width": width, "height": height}
