"""The long benchmarks resume where they stopped, and their verdicts are right."""

import json
import math
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.slow_on_jax

FOLDER = Path(__file__).parent / "benchmarks"
DIGITS, PIXELS, TEXT = "mlp 3 relu", "u-net relu", "characters LSTM 1"


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


# ---- a line a run ---------------------------------------------------------------


def run_of(bench, seed=0, arm="ours", **others):
    return {**bench.run_of(DIGITS, "adam", arm, 1e-3, seed), **others}


def test_finished_runs_are_skipped(bench, path):
    run = run_of(bench)
    bench.Results(path).add(run, {"score": 0.5})
    results = bench.Results(path)
    assert results.has(run)
    for other in ({"seed": 1}, {"rate": 3e-3}, {"epochs": run["epochs"] + 1}):
        assert not results.has({**run, **other})


@pytest.mark.parametrize("torn", ['{"network": "mlp', "{", '{"seed": 0}'])
@pytest.mark.parametrize("finished", [0, 2])
def test_an_unfinished_line_is_dropped(bench, path, torn, finished):
    results = bench.Results(path)
    for seed in range(finished):
        results.add(run_of(bench, seed), {"score": 0.5})
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(torn)
    results = bench.Results(path)
    assert [line["score"] for line in results.lines] == [0.5] * finished
    results.add(run_of(bench, 9), {"score": 0.9})
    lines = path.read_text().splitlines()
    assert [json.loads(line)["score"] for line in lines] == [0.5] * finished + [0.9]


@pytest.mark.seconds
def test_quick_runs_and_resumes(bench, path, monkeypatch, capsys):
    options = ["--quick", "--networks", DIGITS, "--results", str(path)]
    options += ["--arms", "default", "ours", "--half", bench.half_of(DIGITS)]
    [verdicts] = bench.main(options).values()
    [verdict] = verdicts
    assert list(verdict.arms) == ["default", "ours"]
    for arm in verdict.arms:
        assert [one.rate for one in verdict.arms[arm]] == list(bench.RATES["adam"])
        assert 0.2 < verdict.best(arm).score < 1
        best = verdict.best(arm)
        assert best.curve[-1] == pytest.approx(best.score, abs=1e-4)
    whole = path.read_text()
    assert len(whole.splitlines()) == 6

    path.write_text(whole[:-20])  # stopped while the last line was written
    made, done = [], {"score": 0.5, "seconds": 0.0}
    monkeypatch.setattr(bench, "outcome_of", lambda run, *_: made.append(run) or done)
    monkeypatch.setattr(bench, "show", lambda *_: None)
    bench.main(options)
    last = max(bench.RATES["adam"])
    assert made == [bench.run_of(DIGITS, "adam", "ours", last, 0, epochs=1)]
    assert "margin" in capsys.readouterr().out


def test_the_results_are_shown_as_tables(bench, path, capsys):
    results = bench.Results(path)
    for arm, score in (("default", 0.9), ("ours", 0.97)):
        for rate in bench.RATES["adam"]:
            run = bench.run_of(DIGITS, "adam", arm, rate, 0)
            outcome = {"score": score, "curve": [0, score], "tests": 397}
            results.add(run, outcome)
    options = ["--results", str(path), "--half", bench.half_of(DIGITS)]
    bench.main([*options, "--markdown"])
    printed = capsys.readouterr().out
    assert f"| {DIGITS} | 0.900 | 0.970 | 0.035 | ahead | 0.93 | 3 : 3 |" in printed
    assert "ahead of all others in 1 of 1" in printed
    bench.main([*options, "--table"])
    assert DIGITS in capsys.readouterr().out


def test_write_puts_the_tables_between_the_marks(bench, tmp_path, monkeypatch):
    page = tmp_path / "BENCHMARKS.md"
    page.write_text(f"before\n{bench.BEGIN}old\n{bench.END}\nafter\n")
    monkeypatch.setattr(bench, "BENCHMARKS", page)
    bench.main(["--write"])
    text = page.read_text()
    assert "old" not in text
    assert text.startswith(
        "before\n" + bench.BEGIN + "## The fitted half\n\n| network "
    )
    assert text.endswith(bench.END + "\nafter\n")


def test_a_model_starts_over_for_every_run(bench):
    network = bench.NETWORKS[DIGITS]
    trained = bench.Trained(bench.compiled(network, "adam"))
    data = tuple((x[:100], y[:100]) for x, y in network.data_from())
    options = {"batch_size": 50, "epochs": 1, "shuffle": False}

    def start(arm):
        return bench.weights_for(arm, network, data, 0)

    losses = [
        trained.run(start(arm), rate, *data, **options)
        for arm, rate in (("ours", 1e-3), ("default", 1e-3), ("ours", 1e-2))
    ]
    again = start("ours")
    same = trained.run(again, 1e-3, *data, **options)
    assert same["loss"] == pytest.approx(losses[0]["loss"], rel=1e-5)
    for other in losses[1:]:
        assert abs(other["loss"] / same["loss"] - 1) > 1e-3
    lost = trained.run([w * np.nan for w in again], 1e-3, *data, **options)
    assert lost["loss"] is None


def test_what_a_run_notes(bench):
    network = bench.NETWORKS[DIGITS]
    data = tuple((x[:200], y[:200]) for x, y in network.data_from())
    trained = bench.Trained(bench.compiled(network, "adam"))
    run = bench.run_of(DIGITS, "adam", "default", 3e-3, 0, epochs=2)
    weights = bench.weights_for("default", network, data, 0)
    found = bench.outcome_of(run, trained, weights, data)
    first, _, last = found["curve"]
    assert first < 0.3 < last == pytest.approx(found["score"], abs=1e-5)
    assert found["tests"] == 197 + 3
    logits = trained.model.predict(data[1][0], verbose=0)
    accuracy = np.mean(logits.argmax(-1) == data[1][1])
    assert found["score"] == pytest.approx(accuracy)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "outputs", "targets", "score"),
    [
        # For noisy pixels: the error of a half beside a variance of one.
        (PIXELS, [[0.0], [1.0]], [[-1.0], [1.0]], 0.5),
        # −ln 2 for the first token, −ln (4/3) for the second.
        (TEXT, [[[0, 0], [0, math.log(3)]]], [[0, 1]], -math.log(8 / 3) / 2),
    ],
)
def test_what_is_counted_is_the_figure(bench, name, outputs, targets, score):
    network = bench.NETWORKS[name]
    inputs = keras.Input(np.shape(outputs)[1:])
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile("sgd", network.loss(), metrics=[bench.metric_of(network)])
    x, y = np.array(outputs, "float32"), np.array(targets)
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    counted = bench.score_of(network, found["figure"], found["loss"], (None, y))
    assert counted == pytest.approx(score, rel=1e-5)


# ---- what the arms, the rates and the scores are --------------------------------


def test_arms_start_from_what_they_name(bench):
    """He's variance is 2/fan_in, Glorot's 2/(fan_in + fan_out), here 1/fan_in."""
    network = bench.NETWORKS["mlp 10 relu"]
    for arm, factor in (("default", 1), ("textbook", 2)):
        kernels = bench.weights_for(arm, network, None, 0)[2:20:2]
        variances = [64 * np.var(kernel) for kernel in kernels]
        # 9 · 4096 draws: five standard errors are 0.04.
        assert np.mean(variances) == pytest.approx(factor, abs=0.05 * factor)


@pytest.mark.whole
@pytest.mark.parametrize("name", ["resnet 5", "mlp pyramid relu, dropout"])
def test_zero_is_the_identity_or_part_of_a_hadamard_matrix(bench, name):
    network = bench.NETWORKS[name]
    model = network.build(bench.DEFAULT)
    model.set_weights(bench.weights_for("zero", network, None, 0))
    kernels = [one.kernel for one in model.layers if hasattr(one, "kernel")]
    *inner, last = [keras.ops.convert_to_numpy(one) for one in kernels]
    assert not last.any()
    for kernel in inner:
        window, (inputs, outputs) = kernel.shape[:-2], kernel.shape[-2:]
        center = kernel[tuple(size // 2 for size in window)]
        np.testing.assert_allclose(np.abs(kernel).sum(), np.abs(center).sum())
        if not kernel.any():  # a branch ends in it
            continue
        products = center @ center.T  # Hadamard's: rows all alike in size, orthogonal
        if inputs >= outputs:
            assert set(np.unique(kernel)) <= {0, 1}
            assert np.trace(products) == outputs
        elif math.log2(outputs) == round(math.log2(outputs)):
            np.testing.assert_allclose(products, 2 * np.eye(inputs), atol=1e-6)


@pytest.mark.whole
def test_fixup_ends_branches_in_zeros_and_shrinks_what_is_in_them(bench):
    network = bench.NETWORKS["residual mlp 15 relu"]
    kernels = [
        one for one in bench.weights_for("fixup", network, None, 0) if one.ndim > 1
    ]
    first, *inner, last = kernels
    assert not last.any()
    closers, others = inner[1::2], inner[0::2]
    assert len(closers) == len(others) == 15
    assert not any(one.any() for one in closers)
    for one in others:  # two layers in each of 15 branches: He's, times 15^(-1/2)
        std = math.sqrt(2 / one.shape[0] / 15)
        assert np.std(one) == pytest.approx(std, rel=0.1)
    assert np.std(first) == pytest.approx(math.sqrt(2 / first.shape[0]), rel=0.1)
    assert bench.weights_for("fixup", bench.NETWORKS["mlp 3 relu"], None, 0) is None


@pytest.mark.whole
def test_gradinit_scales_each_kernel_by_one_number(bench):
    network = bench.NETWORKS["mlp 3 relu"]
    data = network.data()
    scaled = bench.weights_for("gradinit", network, data, 0)
    if keras.backend.backend() != "jax":
        assert scaled is None
        return
    default = bench.weights_for("default", network, data, 0)
    model = network.build(bench.DEFAULT)
    model.compile("adam", network.loss())
    for one, other in zip(scaled, default, strict=True):
        if one.ndim > 1:
            factors = one / other
            np.testing.assert_allclose(factors, factors.flat[0], rtol=1e-3)
            assert factors.flat[0] != 1


def test_a_third_is_trained_by_another_optimizer_too(bench):
    chosen = [name for name, _ in bench.cases(bench.NETWORKS, ["sgd"])]
    assert chosen == [n for n in bench.NETWORKS if zlib.crc32(n.encode()) % 3 == 0]
    assert len(chosen) / len(bench.NETWORKS) == pytest.approx(1 / 3, abs=0.1)
    assert list(bench.cases([DIGITS], ["adam"])) == [(DIGITS, "adam")]


def test_text_must_be_given(bench, path, capsys):
    with pytest.raises(SystemExit):
        bench.main(["--networks", TEXT, "--results", str(path)])
    assert f"--text is needed for {TEXT}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "figure", "loss", "score"),
    [
        (DIGITS, 0.4, 1.0, 0.4),
        (DIGITS, 0.4, math.nan, 0.0),
        (PIXELS, 0.25, 0.25, 0.75),
        (PIXELS, 1.5, 1.5, 0.0),
        (PIXELS, math.nan, math.nan, 0.0),
        (TEXT, 2.0, 2.0, -2.0),
        (TEXT, math.inf, math.inf, -math.log(8)),
    ],
)
@pytest.mark.whole
def test_lost_runs_score_what_knows_nothing(bench, name, figure, loss, score):
    targets = np.array([-1.0, 1.0]) if name == PIXELS else np.array([3, 7])
    found = bench.score_of(bench.NETWORKS[name], figure, loss, (None, targets))
    assert found == pytest.approx(score)


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
    options = bench.parsed(["--markdown"])
    for half in bench.HALVES:
        verdicts = bench.verdicts_on(half, bench.Results(options.results), options)
        shown = bench.shown_as_markdown(half, verdicts)
        assert shown in bench.BENCHMARKS.read_text(encoding="utf-8")
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
