"""Data of one form is one and the same to every function that reads data."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_initlab import audit, calibrate, compare, probe, recommend

RNG = np.random.default_rng(0)
SMALL = RNG.normal(size=(64, 16)).astype("float32")
TARGETS = 1000 * SMALL
ONES = np.ones(len(SMALL), "float32")
IS_TENSORFLOW = keras.backend.backend() == "tensorflow"
IS_TORCH = keras.backend.backend() == "torch"


class Batches(keras.utils.PyDataset):
    def __init__(self, *batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def as_table(x):
    return pytest.importorskip("pandas").DataFrame(x)


def as_dataset(first, *others):
    tf = pytest.importorskip("tensorflow")
    nest = (first, *others) if others else first
    return tf.data.Dataset.from_tensor_slices(nest).batch(64)


def as_loader(x, y):
    torch = pytest.importorskip("torch")
    examples = [(torch.tensor(one), other) for one, other in zip(x, y, strict=True)]
    return torch.utils.data.DataLoader(examples, batch_size=64)


def square():
    start = keras.initializers.GlorotUniform(seed=1)
    dense = layers.Dense(16, kernel_initializer=start)
    model = keras.Sequential([keras.Input((16,), name="given"), dense])
    model.compile("sgd", "mse", run_eagerly=IS_TENSORFLOW)
    return model


def compared(x):
    data = ((x, TARGETS), (x, TARGETS))
    found = compare(square, ["he_normal"], data, epochs=1, batch_size=64, verbose=0)
    return found.runs[0].curves["loss"][0]


READERS = {
    "recommend": lambda m, d: recommend(m, data=d)[0].forward_gain,
    "rules": lambda m, d: recommend(m, "rules", data=d)[0].confidence,
    "calibrated": lambda m, d: recommend(m, "calibrated", data=d)[0].forward_gain,
    "audit": lambda m, d: len(audit(m, d)),
    "calibrate": lambda m, d: calibrate(m, d)[0].std_before,
    "probe": lambda m, d: probe(m, d)[0].input.std,
}
ARRAYS = {  # which `compare` takes too, beside their targets
    "array": lambda x: x,
    "float64": lambda x: x.astype("float64"),
    "tensor": ops.convert_to_tensor,
    "variable": keras.Variable,
    "list": lambda x: [x],
    "named": lambda x: {"given": x},
    "named beside others": lambda x: {"given": x, "unread": x},
    "table": as_table,
}
OTHERS = {
    "pair": lambda x: (x, TARGETS),
    "with weights": lambda x: (x, TARGETS, ONES),
    "alone": lambda x: (x,),
    "tables": lambda x: (as_table(x), as_table(TARGETS)),
    "generator": lambda x: iter([(x, TARGETS)]),
    "generator of names": lambda x: iter([({"given": x}, TARGETS)]),
    "generator of inputs": lambda x: iter([x]),
    "generator of lists": lambda x: iter([[x, TARGETS]]),  # as of a DataLoader
    "PyDataset": lambda x: Batches((x, TARGETS)),
    "PyDataset with weights": lambda x: Batches((x, TARGETS, ONES)),
    "PyDataset of inputs": lambda x: Batches(x),
}
if IS_TENSORFLOW:
    OTHERS["tf.data"] = lambda x: as_dataset(x, TARGETS)
    OTHERS["tf.data of inputs"] = as_dataset
if IS_TORCH:
    OTHERS["DataLoader"] = lambda x: as_loader(x, TARGETS)
GOOD = ARRAYS | OTHERS


@pytest.mark.whole
@pytest.mark.parametrize("form", GOOD)
def test_data_of_every_form_is_one_to_every_function(form):
    has_targets = form in OTHERS and not form.endswith(("of inputs", "alone"))
    for name, read in READERS.items():
        # Of targets a recommendation takes the scale of what is predicted.
        tells = has_targets and name in ("recommend", "calibrated", "audit")
        expected = read(square(), (SMALL, TARGETS) if tells else SMALL)
        found = read(square(), GOOD[form](SMALL))
        assert found == pytest.approx(expected, rel=1e-5), name


# Keras's own, of what `fit` is given
@pytest.mark.filterwarnings("ignore:.*structure of `inputs` doesn't match")
@pytest.mark.parametrize("form", ARRAYS)
def test_arrays_of_every_form_are_one_to_compare(form):
    assert compared(ARRAYS[form](SMALL)) == pytest.approx(compared(SMALL), rel=1e-5)


@pytest.mark.parametrize("form", ["generator", "PyDataset"])
def test_what_yields_batches_is_refused_by_compare(form):
    with pytest.raises(TypeError, match=r"`data\[0\]\[0\]` must be an array"):
        compared(OTHERS[form](SMALL))


def with_nan(x):
    x = x.copy()
    x[3, 1:3] = np.nan, np.inf
    return x


def ragged():
    return np.array([[1.0, 2.0], [3.0]], dtype=object)


ARRAY = (
    r"must be an array, a list or dict of arrays, or give batches of them\. Received"
)
EMPTY = r"must hold at least one example\. Received"
MEANT = r"must be what 'sequential.*' takes: {'given': \(None, 16\)}\. Received: "
BAD_ANYWHERE = {  # also to `compare`, which has no model at that time
    "number": (lambda: 2.5, TypeError, rf"{ARRAY}: 2\.5 \(float\)"),
    "text": (lambda: "x.csv", TypeError, rf"{ARRAY}: 'x\.csv' \(str\)"),
    "None in a list": (lambda: [None], TypeError, rf"{ARRAY}: None"),
    "numbers": (SMALL.tolist, TypeError, rf"{ARRAY}: .* \(float\)"),
    "function": (lambda: as_table, TypeError, ARRAY),
    "strings": (lambda: np.array([["a"] * 16]), TypeError, "numbers.*array of <U1"),
    "complex": (lambda: SMALL.astype("complex64"), TypeError, "numbers.*complex64"),
    "dates": (lambda: np.zeros((4, 16), "M8[s]"), TypeError, "numbers.*datetime64"),
    "ragged": (ragged, TypeError, "must hold numbers.*array of object"),
    "table of text": (lambda: as_table({"a": ["x"]}), TypeError, "object|str"),
    "NaN": (lambda: with_nan(SMALL), ValueError, r"finite.*2 NaN or Inf.*\(64, 16\)"),
    "no examples": (lambda: SMALL[:0], ValueError, rf"{EMPTY}.*\(0, 16\)"),
    "scalar": (lambda: np.float32(1), ValueError, rf"{EMPTY}.*\(\)"),
    "empty list": (list, ValueError, rf"{EMPTY}.*\[\]"),
    "empty dict": (dict, ValueError, EMPTY),
    "uneven": (
        lambda: [SMALL, SMALL[:9]],
        ValueError,
        r"one and the same number of examples.*\(64, 16\), \(9, 16\)",
    ),
}
BAD = {
    "set": (lambda: {1.5}, TypeError, ARRAY),
    "width": (lambda: SMALL[:, :3], ValueError, rf"{MEANT}.*\(64, 3\)"),
    "one example": (lambda: SMALL[0], ValueError, rf"{MEANT}.*\(16,\)"),
    "parts": (lambda: [SMALL[:32], SMALL[32:]], ValueError, MEANT),
    "examples": (lambda: list(SMALL), ValueError, MEANT),
    "another name": (lambda: {"other": SMALL}, ValueError, rf"{MEANT}.*'other'"),
    "no batch": (lambda: iter([]), ValueError, rf"{EMPTY}.*no batch in a list_iter"),
    "no batches": (Batches, ValueError, rf"{EMPTY}.*no batch in a Batches"),
    "too many": (lambda: (SMALL,) * 4, ValueError, "4 parts for 1 inputs"),
    "in a generator": (lambda: iter([(with_nan(SMALL), ONES)]), ValueError, "2 NaN"),
}
if IS_TENSORFLOW:
    import tensorflow as tf

    BAD_ANYWHERE["ragged tensor"] = (
        lambda: tf.ragged.constant([[1.0, 2.0], [3.0]]),
        TypeError,
        "must hold numbers.*RaggedTensor",
    )
    BAD_ANYWHERE["tensor of text"] = (
        lambda: tf.constant([["a"] * 16]),
        TypeError,
        "must hold numbers.*object",
    )


@pytest.mark.whole
@pytest.mark.parametrize("case", BAD_ANYWHERE | BAD)
def test_bad_data_is_refused_by_every_function_in_the_same_words(case):
    make, kind, text = (BAD_ANYWHERE | BAD)[case]
    told = set()
    model = square()
    for name, read in READERS.items():
        argument = "x" if name in ("calibrate", "probe") else "data"
        with pytest.raises(kind, match=f"`{argument}` (?s:.*){text}|{text}") as caught:
            read(model, make())
        found = str(caught.value).replace(f"`{argument}`", "`data`")
        told.add(found.replace(f"{argument} of", "data of").partition(" at 0x")[0])
    if case in BAD_ANYWHERE:
        with pytest.raises(kind, match=text):
            compared(make())
    assert len({one.replace("x=", "data=") for one in told}) == 1


@pytest.mark.parametrize("wrong", [TARGETS[:9], with_nan(TARGETS), "y", [1, 2]])
def test_bad_targets_are_refused_where_they_count(wrong):
    kind = TypeError if isinstance(wrong, (str, list)) else ValueError
    with pytest.raises(kind, match=r"`y` must|in `y` must"):
        probe(square(), SMALL, wrong)
    with pytest.raises(kind, match=r"`data\[0\]\[1\]` must"):
        compare(square, ["zeros"], ((SMALL, wrong), (SMALL, TARGETS)), 1, verbose=0)
    if not isinstance(wrong, str) and len(wrong) != len(SMALL):
        with pytest.raises(ValueError, match="`data` must hold one target for each"):
            recommend(square(), data=(SMALL, wrong))
    else:  # what is no number tells nothing; a loss of one's own may know better
        assert recommend(square(), data=(SMALL, wrong))


def test_audit_reads_a_generator_once():
    hidden = [layers.Dense(32, "tanh") for _ in range(2)]
    model = keras.Sequential([keras.Input((16,)), *hidden, layers.Dense(2)])
    batches = iter([(SMALL, TARGETS), (with_nan(SMALL), TARGETS)])
    audit(model, batches)  # judges by two policies
    assert np.isnan(next(batches)[0]).any()


def test_probe_takes_the_labels_that_come_with_the_inputs():
    model = square()
    expected = probe(model, SMALL, TARGETS)
    weighted = probe(model, SMALL, TARGETS, sample_weight=3 * ONES)
    assert expected.loss_name == "compiled"
    assert probe(model, (SMALL, TARGETS)).loss == expected.loss
    assert probe(model, (SMALL, TARGETS, 3 * ONES)).loss == weighted.loss
    with pytest.raises(ValueError, match="y beside x of type tuple"):
        probe(model, (SMALL, TARGETS), TARGETS)


class Both(keras.Model):
    """A model of two inputs with a `call` of its own."""

    def __init__(self):
        super().__init__()
        self.left, self.right = layers.Dense(4), layers.Dense(4)

    def call(self, inputs):
        return self.left(inputs[0]) + self.right(inputs[1])


def functional():
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    return keras.Model([left, right], layers.Dense(4)(left) + layers.Dense(4)(right))


def by_name():
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    given = {"left": left, "right": right}
    return keras.Model(given, layers.Dense(4)(left) + layers.Dense(4)(right))


def own_call():
    model = Both()
    model([SMALL[:, :8], SMALL[:, 8:]])
    return model


@pytest.mark.parametrize("build", [functional, by_name, own_call])
def test_a_pair_for_a_model_of_two_inputs_is_these(build):
    left, right, y = SMALL[:, :8], 50 * SMALL[:, 8:], TARGETS[:, :4]
    given = {"left": left, "right": right} if build is by_name else [left, right]
    forms = {
        "pair": (left, right),
        "with targets": (given, y),
        "with weights": (given, y, ONES),
        "batches of pairs": iter([(left, right)]),
        "batches with targets": iter([(given, y)]),
        "loader": iter([[given, y]]),
    }
    expected = [row.to_dict() for row in recommend(build(), data=given)]
    for name, form in forms.items():
        found = [row.to_dict() for row in recommend(build(), data=form)]
        gains = [[row["forward_gain"] for row in rows] for rows in (found, expected)]
        assert gains[0] == gains[1], name
    for form in ((left, right), (given, y)):
        assert len(calibrate(build(), form).changed) == 2
        assert probe(build(), form, loss=None if form[1] is right else "mse")


def test_the_order_is_the_models_own():
    """Names, keys and places in a list all mean the inputs that the model counts."""
    later, first = keras.Input((8,), name="later"), keras.Input((8,), name="first")
    outputs = layers.Dense(4, name="a")(later) + layers.Dense(4, name="b")(first)
    small, large = SMALL[:, :8], 50 * SMALL[:, 8:]
    scales = {"a": np.sqrt(np.mean(small**2)), "b": np.sqrt(np.mean(large**2))}
    for inputs, form in (
        ([later, first], [small, large]),
        ([later, first], {"first": large, "later": small}),
        ({"later": later, "first": first}, {"later": small, "first": large}),
        ({"later": later, "first": first}, [large, small]),  # by the keys in order
        ([[later], first], [[small], large]),
    ):
        model = keras.Model(inputs, outputs)
        gains = {row.path[0]: row.forward_gain for row in recommend(model, data=form)}
        found = {name: gain * scales[name] for name, gain in gains.items()}
        assert found["a"] == pytest.approx(found["b"], rel=1e-5)
        rows = {row.path: row for row in probe(model, form)}
        assert rows["b"].input.std == pytest.approx(large.std(), rel=1e-4)
        assert calibrate(model, form, overwrite=True).changed


def test_the_only_array_in_a_list_is_for_a_call_of_its_own():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def call(self, inputs):
            return self.dense(inputs)

    model = Own()
    model(SMALL)
    for read in READERS.values():
        assert read(model, [SMALL]) is not None
