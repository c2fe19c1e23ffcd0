"""What screening a file finds."""

from __future__ import annotations


class Found(list[str]):
    """What speaks against a file: Python code, foreign classes, and all else.

    Attributes:
        code: Python code.
        foreign: classes and functions that are no part of a model.
        objects: how many objects its configuration names.
        stored: how many bytes of weights it holds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.code: list[str] = []
        self.foreign: list[str] = []
        self.objects = 0
        self.stored = 0
