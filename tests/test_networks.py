"""The benchmark's networks fit their data, learn, and are halved by a fixed rule."""

import functools
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.slow_on_jax

FOLDER = Path(__file__).parent / "benchmarks"
MODULES = (
    "autoencoders",
    "convolutions",
    "dense",
    "language",
    "later_convolutions",
    "mixers",
    "others",
    "recurrent",
    "tables",
    "text",
)
SOME = (
    "mlp 3 relu",
    "cnn 5 relu",
    "vae, dense",
    "bag of words, 2 hidden",
    "tumors, categories",
    "characters window of 8",
    "rows GRU 1",
    "inverted 4 hard silu, no norm",
    "mixer 4",
    "twins mlp, joined",
    "areas mlp 3, own units",
    "text cnn",
    "photo, sines 4",
    "experts, 1 of 4",
    "pixels wavenet 6",
    "conv autoencoder leaky, dense code",
    "rows transformer 3, swiglu",
    "maxout 3",
    "rows attention pooling",
    "cnn 6, group norm",
)


@pytest.fixture
def networks(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import networks

    return networks


@pytest.fixture
def folder(tmp_path):
    """Sentences of forty words, of which six say whether they praise."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(40)])
    for name, told in (("negative.txt", "bad dull flat"), ("positive.txt", "good")):
        lines = [
            " ".join([*rng.choice(words, rng.integers(3, 40)), told])
            for _ in range(150)
        ]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def some_of(x, count):
    return keras.tree.map_structure(lambda part: part[:count], x)


def module_of(network):
    build = network.build
    while isinstance(build, functools.partial):
        build = build.func
    return build.__module__.rpartition(".")[2]


# ---- the table ------------------------------------------------------------------


def test_there_are_enough_networks_and_families(networks):
    table = networks.NETWORKS
    assert len(table) >= 90
    assert len({network.family for network in table.values()}) >= 36
    assert all(name == network.name for name, network in table.items())
    assert {module_of(network) for network in table.values()} == set(MODULES)
    assert set(SOME) <= set(table)


def test_names_and_figures_are_checked(networks):
    from networks._network import add

    with pytest.raises(ValueError, match="Received: 'mlp 3 relu' twice"):
        add("mlp 3 relu", "mlp", None, None)
    with pytest.raises(ValueError, match="Received: figure='rank'"):
        add("another", "mlp", None, None, figure="rank")
    assert "another" not in networks.NETWORKS


@pytest.mark.parametrize(
    ("family", "is_fitted"),
    [("mlp", True), ("cnn", False), ("vgg", False), ("u-net", True)],
)
def test_the_half_depends_on_the_name_alone(networks, family, is_fitted):
    assert networks.is_fitted(family) is is_fitted
    assert (zlib.crc32(family.encode()) % 2 == 0) is is_fitted


def test_neither_half_is_small(networks):
    table = networks.NETWORKS.values()
    share = np.mean([networks.is_fitted(network.family) for network in table])
    assert 0.4 <= share <= 0.6


# ---- data -----------------------------------------------------------------------


def test_data_are_the_same_for_all_and_split(networks, folder):
    for network in networks.NETWORKS.values():
        train, test = network.data_from(folder)
        assert network.data_from(folder)[0][1] is train[1]  # made once
        for x, y in (train, test):
            sizes = {len(part) for part in keras.tree.flatten(x)}
            assert sizes == {len(y)}
            assert len(y) > 20


@pytest.mark.parametrize(
    ("name", "cut", "pixels", "largest"),
    [("digits", 1400, 64, 16), ("mnist", 4000, 196, 255)],
)
def test_images_are_standardized_unless_raw(networks, name, cut, pixels, largest):
    from networks import data

    (x, y), (_, y_test) = getattr(data, name)((pixels,))
    assert len(x) == cut
    assert set(y) == set(y_test) == set(range(10))
    assert x.mean() == pytest.approx(0, abs=1e-4)
    assert x.std() == pytest.approx(1, abs=1e-4)
    raw = getattr(data, f"raw_{name}")((pixels,))[0][0]
    assert raw.min() == 0
    assert raw.max() == largest


def test_twins_are_pairs_of_one_class_in_half_of_the_cases(networks):
    from networks import data

    (_, classes), _ = data.digits((8, 8, 1))
    (x, y), _ = data.pixel_pairs()
    images, _ = data.digits((8, 8, 1))[0]
    of = {image.tobytes(): label for image, label in zip(images, classes, strict=True)}
    left, right = ([of[image.tobytes()] for image in x[k]] for k in ("left", "right"))
    np.testing.assert_array_equal(np.equal(left, right), y)
    assert y.mean() == pytest.approx(0.5, abs=0.05)


def test_windows_are_followed_by_what_comes_next(networks, folder):
    from networks import text_data

    for x, y in text_data.characters(folder, rows=50):
        assert x.shape == y.shape
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    train, test = text_data.polarity(folder)
    assert (len(train[1]), len(test[1])) == (240, 60)
    assert (train[0] == text_data.PAD).any()


# ---- models ---------------------------------------------------------------------


def check(network, folder):
    """It gives what its targets ask for, and ten steps on a batch lower the loss."""
    (x, y), _ = network.data_from(folder)
    x, y = some_of(x, network.batch), y[: network.batch]
    model = network.build(network.textbook)
    assert not model.compiled
    shape = model.output_shape[1:]
    if network.figure == "explained":
        assert shape == y.shape[1:]
    else:
        assert shape[:-1] == y.shape[1:]
        assert y.dtype == np.int32
        assert shape[-1] > y.max()
    model.compile(keras.optimizers.Adam(1e-3), network.loss())
    fit = model.fit(x, y, batch_size=len(y), epochs=10, verbose=0)
    losses = fit.history["loss"]
    assert np.isfinite(losses).all()
    assert min(losses[-3:]) < losses[0], losses


@pytest.mark.seconds
@pytest.mark.parametrize("name", SOME)
def test_some_build_and_learn(networks, folder, name):
    check(networks.NETWORKS[name], folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("module", MODULES)
def test_all_build_and_learn(networks, folder, module):
    wrong = {}
    for name, network in networks.NETWORKS.items():
        if module_of(network) != module:
            continue
        try:
            check(network, folder)
        except Exception as error:  # all of them are told at once
            wrong[name] = repr(error)
        keras.utils.clear_session(free_memory=True)
    assert not wrong
