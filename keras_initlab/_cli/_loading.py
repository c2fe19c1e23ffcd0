"""Reading models from files, safely, and writing them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras

from .._core.errors import message
from ._allowance import Allowance
from ._command import UsageError
from ._screening import screened

_SUFFIX = ".keras"
_LONGEST_CAUSE = 300


def load(path: Path, with_optimizer: bool = False) -> keras.Model:
    """Loads a `.keras` file without running code that lies in it.

    Args:
        path: the file.
        with_optimizer: also restore what `compile` was given and the optimizer.

    Raises:
        UsageError: if there is no such file, it is no such model, holds code, or asks
            for far more than it stores.
    """
    _check_file(path)
    allowance = Allowance(_screen(path, with_optimizer))
    try:
        with allowance.watched():
            loaded = keras.saving.load_model(
                path, compile=with_optimizer, safe_mode=True
            )
    except Exception as error:  # Keras raises whatever its layers raise
        if allowance.exceeded:
            raise UsageError(_too_large(path, allowance.exceeded)) from error
        raise _refusal(path, error) from error
    if allowance.exceeded:  # a part of the model is missing
        raise UsageError(_too_large(path, allowance.exceeded))
    if not isinstance(loaded, keras.Model):
        raise UsageError(_no_model(path, f"a {type(loaded).__name__}"))
    return loaded


def check_free(path: Path) -> None:
    """Raises if no model may be written to a path: a file is there, or no folder.

    Raises:
        UsageError: in these cases, and for another suffix than `.keras`.
    """
    problem = None
    if path.suffix != _SUFFIX:
        problem = "whose name does not end with it"
    elif path.exists():
        problem = "which exists"
    elif not path.parent.is_dir():
        problem = "in a folder that does not exist"
    if problem:
        raise UsageError(
            message(f"`--apply` must name a new {_SUFFIX} file.", f"{path}, {problem}")
        )


def save(model: keras.Model, path: Path) -> None:
    """Saves a model, all of it or nothing.

    Raises:
        UsageError: if the file cannot be written.
    """
    part = path.with_name(f"{path.stem}.part{_SUFFIX}")
    try:
        model.save(part)
        part.replace(path)
    except OSError as error:
        raise UsageError(
            message("`--apply` must name a file to write.", f"{path}, {error}")
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise UsageError(message("`model` must be a file.", f"{path}, not found"))
    if path.is_dir() or path.suffix != _SUFFIX or not zipfile.is_zipfile(path):
        what = "a folder" if path.is_dir() else "a file of another kind"
        raise UsageError(_no_model(path, what))


def _screen(path: Path, with_compile: bool) -> int:
    """Returns how many bytes of weights a file stores.

    Raises:
        UsageError: if it names more than what models are made of.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = screened(archive, with_compile)
    except Exception as error:  # whatever a broken file makes the readers raise
        raise _refusal(path, error) from error
    if found.code:
        raise UsageError(_holds_code(path))
    if found.foreign:
        raise UsageError(_holds_foreign(path, _listed(found.foreign)))
    if found:
        raise UsageError(
            message(
                "`model` must hold nothing but a model.",
                f"{path} with {_listed(found)}",
                f"Save the model anew with `model.save('model{_SUFFIX}')`.",
            )
        )
    return found.stored


def _listed(found: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(found))[:_LONGEST_CAUSE]


def _no_model(path: Path, what: str) -> str:
    return message(
        f"`model` must be a {_SUFFIX} file that holds a model.",
        f"{path}, {what}",
        f"Save one with `model.save('model{_SUFFIX}')`.",
    )


def _too_large(path: Path, exceeded: str) -> str:
    return message(
        "`model` must not ask for more than its file stores.",
        f"{path} with {exceeded[:_LONGEST_CAUSE]}",
        "If you trust the file, load it yourself and call "
        "`keras_initlab.recommend(model)`.",
    )


def _refusal(path: Path, error: BaseException) -> UsageError:
    """What to say of a file that Keras does not load."""
    cause = " ".join(str(error).split())
    if "safe_mode" in cause or "unsafe" in cause:
        return UsageError(_holds_code(path))
    if "register_keras_serializable" in cause or "custom_objects" in cause:
        return UsageError(_holds_foreign(path, cause[:_LONGEST_CAUSE]))
    what = f"{type(error).__name__}: {cause[:_LONGEST_CAUSE]}"
    return UsageError(_no_model(path, what))


def _holds_code(path: Path) -> str:
    return message(
        "`model` must not hold Python code; no `safe_mode=False` is offered.",
        f"{path} with a Lambda layer, or another object that is code",
        "If you trust the file, load it yourself by `keras.saving.load_model("
        "path, safe_mode=False)` and call `keras_initlab.recommend(model)`.",
    )


def _holds_foreign(path: Path, what: str) -> str:
    return message(
        "`model` must be made of Keras's own classes.",
        f"{path}, {what}",
        "Import your classes in Python, load the model there and call "
        "`keras_initlab.recommend(model)`.",
    )
