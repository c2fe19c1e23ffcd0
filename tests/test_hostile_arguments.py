"""Every argument of every public function, given what it is not made for."""

import inspect

import hostile
import pytest
from hostile_arguments import CALLS, VALUES, made, model

from keras_initlab import Applied

ARGUMENTS = [
    hostile.case(name, argument, asks=asked, id=f"{name}-{argument}")
    for name, call in CALLS.items()
    for argument in call.arguments
    for asked in [name.removesuffix(".compare")]
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def asked(name, argument, value):
    """Calls with one hostile argument, and takes back what that wrote."""
    call = CALLS[name]
    given = {key: made(one) for key, one in call.arguments.items()}
    result = made(call.function)(**{**given, argument: value})
    if isinstance(result, Applied):
        result.undo()


def fault(name, argument, key):
    """What is wrong with the answer to a value, or nothing."""
    call = CALLS[name]
    works, own = call.works.get(argument, ()), call.own.get(argument, ())
    try:
        asked(name, argument, VALUES[key])
    except (TypeError, ValueError, RuntimeError) as error:
        text = str(error)
        if key in own:
            return ""
        named = f"`{argument}`" in text and " Received: " in text
        return "" if named and key not in works else f"{key}: {error!r}"
    except Exception as error:
        return f"{key}: {error!r}"
    return "" if key in works else f"{key} was taken"


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_what_an_argument_is_not_made_for(name, argument):
    with hostile.left_as_it_was(model()):
        faults = [fault(name, argument, key) for key in VALUES]
    assert [one for one in faults if one] == []


def test_the_check_can_fail(monkeypatch):
    wrong = CALLS["gain"]._replace(works={"kind": {"text"}})
    monkeypatch.setitem(CALLS, "gain", wrong)
    assert "text: ValueError" in fault("gain", "kind", "text")
    assert fault("gain", "activation", "None") == "None was taken"


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_that_is_needed_is_in_the_table(name):
    parameters = inspect.signature(made(CALLS[name].function)).parameters.values()
    needed = {one.name for one in parameters if one.default is one.empty}
    assert needed <= {*CALLS[name].arguments}
