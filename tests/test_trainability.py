"""The long benchmarks resume where they stopped, and their verdicts are right."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_initlab as initlab

pytestmark = pytest.mark.slow_on_jax

FOLDER = Path(__file__).parent / "benchmarks"
DIGITS, MNIST, PIXELS = "mlp 3 relu", "vgg relu", "u-net relu"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import trainability

    return trainability


@pytest.fixture
def depth(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import depth

    return depth


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "runs.jsonl"


def results_of(bench, path, scores, name):
    """Made-up results: scores by arm, a seed each."""
    results = bench.Results(path)
    for arm, values in scores.items():
        for seed, score in enumerate(values):
            results.add(bench.run_of(name, arm, seed), {"score": score})
    return results


# ---- a line a run ---------------------------------------------------------------


def test_finished_runs_are_skipped(bench, path):
    run = bench.run_of(DIGITS, "ours", 0)
    bench.Results(path).add(run, {"score": 0.5})
    results = bench.Results(path)
    assert results.has(run)
    assert not results.has({**run, "seed": 1})
    assert not results.has({**run, "epochs": run["epochs"] + 1})


@pytest.mark.parametrize("torn", ['{"combination": "mlp', "{", '{"seed": 0}'])
@pytest.mark.parametrize("finished", [0, 2])
def test_an_unfinished_line_is_dropped(bench, path, torn, finished):
    scores = [0.5] * finished
    results_of(bench, path, {"ours": scores}, DIGITS)
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(torn)
    results = bench.Results(path)
    assert [line["score"] for line in results.lines] == scores
    results.add(bench.run_of(DIGITS, "ours", 9), {"score": 0.9})
    lines = path.read_text().splitlines()
    assert [json.loads(line)["score"] for line in lines] == [*scores, 0.9]


@pytest.mark.seconds
def test_quick_runs_and_resumes(bench, path, monkeypatch, capsys):
    options = ["--quick", "--combinations", DIGITS, "--results", str(path)]
    options += ["--arms", "default", "ours"]
    [verdict] = bench.main(options)
    assert all(0.2 < mean < 1 for mean in verdict.means.values())
    assert list(verdict.means) == ["default", "ours"]
    whole = path.read_text()
    assert len(whole.splitlines()) == 2

    path.write_text(whole[:-20])  # stopped while the last line was written
    made = []
    monkeypatch.setattr(bench, "train_runs", lambda runs, results: made.extend(runs))
    bench.main(options)
    assert made == [bench.run_of(DIGITS, "ours", 0, epochs=1)]

    path.write_text(whole)
    bench.main([*options, "--table"])
    assert len(made) == 1
    bench.main([*options, "--markdown"])
    assert f"| {DIGITS} | " in capsys.readouterr().out


def test_a_model_starts_over_for_every_run(bench):
    combination = bench.COMBINATIONS[DIGITS]
    trained = bench.Trained(bench.compiled(combination))
    data = tuple((x[:100], y[:100]) for x, y in bench.data_named("digits"))
    options = {"batch_size": 50, "epochs": 1, "shuffle": False}
    losses = [
        trained.run(bench.weights_for(arm, combination, 0), rate, *data, **options)
        for arm, rate in (("ours", 1e-3), ("default", 1e-3), ("ours", 1e-2))
    ]
    again = bench.weights_for("ours", combination, 0)
    same = trained.run(again, 1e-3, *data, **options)
    assert same["loss"] == pytest.approx(losses[0]["loss"], rel=1e-5)
    for other in losses[1:]:
        assert abs(other["loss"] / same["loss"] - 1) > 1e-3
    lost = trained.run([w * np.nan for w in again], 1e-3, *data, **options)
    assert lost["loss"] is None


def test_an_arm_without_its_function_stays_open(bench, monkeypatch):
    monkeypatch.delattr(initlab, "calibrate", raising=False)
    assert bench.available(bench.ARMS) == ["default", "textbook", "ours"]
    monkeypatch.setattr(initlab, "calibrate", lambda model, x: x, raising=False)
    assert bench.available(bench.ARMS) == list(bench.ARMS)


# ---- what the arms and data are -------------------------------------------------


def test_arms_start_from_what_they_name(bench):
    """He's variance is 2/fan_in, Glorot's 2/(fan_in + fan_out), here 1/fan_in."""
    combination = bench.COMBINATIONS["mlp 10 relu"]
    for arm, factor in (("default", 1), ("textbook", 2)):
        kernels = bench.weights_for(arm, combination, 0)[2:20:2]
        variances = [64 * np.var(kernel) for kernel in kernels]
        # 9 · 4096 draws: five standard errors are 0.04.
        assert np.mean(variances) == pytest.approx(factor, abs=0.05 * factor)


@pytest.mark.parametrize(
    ("name", "sizes", "pixels"),
    [("digits", (1400, 397), 64), ("mnist", (4000, 1000), 196)],
)
def test_data_are_standardized_and_split(bench, name, sizes, pixels):
    train, test = bench.data_named(name)
    assert (len(train[0]), len(test[0])) == sizes
    assert train[0].shape[1] == pixels
    assert train[0].mean() == pytest.approx(0, abs=1e-4)
    assert train[0].std() == pytest.approx(1, abs=1e-4)
    assert set(test[1]) == set(range(10))


def test_noise_is_to_be_taken_off(bench):
    noisy, clean = bench.data_named("clean digits")[0]
    assert np.std(noisy - clean) == pytest.approx(bench.NOISE, abs=0.01)
    assert np.std(clean) == pytest.approx(1, abs=1e-4)


def test_there_are_enough_combinations(bench):
    assert len(bench.COMBINATIONS) >= 40
    kinds = ("mlp", "cnn", "resnet", "mobilenet", "mixer", "vit", "transformer")
    kinds += ("LSTM", "GRU", "autoencoder", "u-net", "selu", "densenet")
    for kind in kinds:
        assert any(kind in name for name in bench.COMBINATIONS), kind


def test_two_combinations_of_one_name(bench):
    import architectures

    with pytest.raises(ValueError, match="Received: 'mlp 3 relu' twice"):
        architectures.add(DIGITS, None, "digits")


@pytest.mark.slow
def test_every_combination_builds(bench):
    for combination in bench.COMBINATIONS.values():
        model = combination.build(bench.DEFAULT)
        data = bench.data_for(model, combination)
        assert data[0][0].shape[1:] == model.input_shape[1:]
        assert all(row.role != "unknown" for row in initlab.recommend(model))


# ---- verdicts -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scores", "word"),
    [
        # Reconstructions know no test set's error: the margin is 0.01.
        (PIXELS, {"default": [0.9] * 3, "ours": [0.9] * 3}, "level"),
        (PIXELS, {"default": [0.9] * 3, "ours": [0.892] * 3}, "level"),
        (PIXELS, {"default": [0.9] * 3, "ours": [0.888] * 3}, "harmful"),
        (PIXELS, {"default": [0.9] * 3, "ours": [0.912] * 3}, "ahead"),
        (
            PIXELS,
            {"default": [0.8] * 3, "textbook": [0.9] * 3, "ours": [0.85] * 3},
            "behind",
        ),
        (
            PIXELS,
            {"default": [0.8] * 3, "textbook": [0.9] * 3, "ours": [0.905] * 3},
            "level",
        ),
        (
            PIXELS,
            {"default": [0.9] * 3, "calibrated": [0.95] * 3, "ours": [0.85] * 3},
            "harmful",
        ),
        # Seeds that differ by 0.1 widen it to 2·√(2·0.01/3) = 0.163.
        (PIXELS, {"default": [0.6, 0.7, 0.8], "ours": [0.45, 0.55, 0.65]}, "level"),
        (PIXELS, {"default": [0.6, 0.7, 0.8], "ours": [0.4, 0.5, 0.6]}, "harmful"),
        # 397 images: 2·√(2·0.9·0.1/397) = 0.043; 1,000: 0.027.
        (DIGITS, {"default": [0.9] * 3, "ours": [0.865] * 3}, "level"),
        (MNIST, {"default": [0.9] * 3, "ours": [0.865] * 3}, "harmful"),
        (DIGITS, {"default": [0.9] * 3}, "open"),
        (DIGITS, {"ours": [0.9] * 3}, "ahead"),
    ],
)
def test_verdicts(bench, path, name, scores, word):
    verdict = bench.verdict_on(name, results_of(bench, path, scores, name))
    assert verdict.word == word
    row = bench.cells_of(verdict)
    assert len(row) == len(bench.HEADINGS)
    assert row[-1] == word


def test_margin(bench, path):
    ours, default = [0.95, 0.97, 0.96], [0.9, 0.93, 0.84]
    scores = {"ours": ours, "default": default}
    verdict = bench.verdict_on(DIGITS, results_of(bench, path, scores, DIGITS))
    seeds = (np.var(ours, ddof=1) + np.var(default, ddof=1)) / 3
    tests = (0.96 * 0.04 + 0.89 * 0.11) / 397
    expected = 2 * np.sqrt(seeds + tests)
    assert verdict.margin("ours", "default") == pytest.approx(expected)
    assert verdict.best == "ours"


def test_summary(bench):
    words = ["level", "ahead", "behind", "harmful", "open"]
    verdicts = [Made(word) for word in words]
    assert bench.summary(verdicts) == [
        "Within the margin of the best: 2 of 4 combinations (50%; ahead of all "
        "others in 1).",
        "Below Keras's default by more than the margin: 1.",
    ]
    assert "yet" in bench.summary(verdicts[-1:])[0]


class Made:
    def __init__(self, word):
        self.word = word


def test_lost_runs_score_nothing(bench):
    combination = bench.COMBINATIONS[PIXELS]
    data = (None, (None, np.array([-1.0, 1.0])))
    for loss, score in ((None, 0.0), (0.25, 0.75), (1.5, 0.0)):
        assert bench.scored({"loss": loss}, combination, data) == score
    accuracy = {"accuracy": 0.4, "loss": None}
    assert bench.scored(accuracy, bench.COMBINATIONS[DIGITS], data) == 0.4


# ---- depth × activation ---------------------------------------------------------


def test_depth_covers_every_pointwise_activation(depth):
    names = {function.__name__ for function in depth.keras_activations()}
    assert names == {*depth.activations(), *depth.NOT_POINTWISE, *depth.OTHERS}
    x = np.linspace(-3, 3, 6, dtype="float32").reshape(2, 3)
    for name in depth.activations():
        function = keras.activations.get(name)
        alone = [float(function(keras.ops.array([v]))[0]) for v in x.ravel()]
        y = keras.ops.convert_to_numpy(function(keras.ops.array(x)))
        np.testing.assert_allclose(y.ravel(), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_depth_runs_and_resumes(depth, path, monkeypatch, capsys):
    options = ["--quick", "--activations", "tanh", "--results", str(path)]
    depth.main(options)
    assert len(path.read_text().splitlines()) == 3
    assert "0.9 or more for" in capsys.readouterr().out
    made = []
    monkeypatch.setattr(depth, "train_runs", lambda runs, results: made.extend(runs))
    depth.main(options)
    assert made == []
    depth.main([*options, "--arms", "ours", "--rates", "3e-4", "0.1"])
    assert [run["learning_rate"] for run in made] == [0.1]
    assert "1e-01" in capsys.readouterr().out


# ---- the README -----------------------------------------------------------------


def test_the_readme_shows_the_results_that_are_on_file(bench, depth):
    readme = (FOLDER.parent.parent / "README.md").read_text(encoding="utf-8")
    results = bench.Results(FOLDER / "results" / "trainability.jsonl")
    verdicts = [bench.verdict_on(name, results) for name in bench.COMBINATIONS]
    assert bench.as_markdown(verdicts) in readme
    for sentence in bench.summary(verdicts):
        assert sentence in readme.replace("\n", " ")
    depths = depth.Results(FOLDER / "results" / "depth.jsonl")
    assert depth.as_markdown(depths, (50, 100, 1000)) in readme
    for sentence in depth.counts(depths, (50, 100, 1000)):
        assert sentence in readme.replace("\n", " ")


# ---- the guide ------------------------------------------------------------------


@pytest.fixture
def guide(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import guide

    return guide


def test_the_guide_shows_the_results_that_are_on_file(guide):
    results = guide.Results(FOLDER / "results" / "guide.jsonl")
    table = guide.as_markdown(results)
    assert "–" not in table.replace("−", "")
    assert guide.BEGIN + table + guide.END in guide.GUIDE.read_text()


def test_claims_are_ordered_and_the_level_ones_bold(guide, tmp_path):
    results = guide.Results(tmp_path / "runs.jsonl")
    claim = next(iter(guide.CLAIMS))
    scores = {"he_normal": 0.5, "he_uniform": 0.9, "glorot_normal": 0.88}
    for label, score in scores.items():
        for seed in range(3):
            run = guide.run_of(claim, label, seed)
            results.add(run, {"accuracy": score + 0.001 * seed})
    row = guide.as_markdown(results).splitlines()[2]
    shown = "**he_uniform 0.901**, **glorot_normal 0.881**, he_normal 0.501"
    assert row == f"| {claim} | {shown}, recommended – |"


@pytest.mark.parametrize("schedule", ["", "warm-up", "cosine"])
def test_schedules_reach_their_rate(guide, schedule):
    arm = guide.Arm((4,), rate=0.01, schedule=schedule)
    rate = guide.optimizer_of(arm)._learning_rate
    if not schedule:
        assert float(rate) == pytest.approx(0.01)
        return
    found = [float(rate(step)) for step in (0, guide.STEPS // 5, guide.STEPS)]
    expected = {"warm-up": [0, 0.01, 0.01], "cosine": [0.01, None, 0]}[schedule]
    for one, other in zip(found, expected, strict=True):
        assert other is None or one == pytest.approx(other, abs=1e-7)


@pytest.mark.slow
def test_quick_measures_one_run(guide, tmp_path, capsys):
    guide.main(["--quick", "--results", str(tmp_path / "runs.jsonl")])
    assert 0.5 < float(capsys.readouterr().out) <= 1
