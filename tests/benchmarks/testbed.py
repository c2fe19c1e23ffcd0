"""What a recommendation does to models of other libraries.

Each model of `tests/testbed.py` runs on its inputs as its library starts it, and again
with the recommended weights. Heard is what comes out of every kernel, beside the std
that its row names; the largest and the smallest std of any hidden output; for a
language model the cross entropy on targets drawn evenly, beside ln V; what `audit`
finds; whether `undo` brings back every bit; and which biases and scales were written.

    KERAS_BACKEND=torch python tests/benchmarks/testbed.py --out testbed.jsonl
    python tests/benchmarks/testbed.py --out testbed.jsonl --table

One line a model is added to `--out`; models that are in it are not measured again, so
it may be stopped at any time. Each runs in a process of its own: one that crashes, or
takes longer than `--timeout` seconds, is a line that says so.

Dropout does nothing. Batch normalization goes by the batch, as in training and as the
stds are meant; a model that has some runs once more by its moving averages.

A kernel that is used several times counts with its first use (that of a tied table is
looking up rows); all uses are in the file. In ratios, measured is the std over all
numbers of an output.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import multiprocessing
import os
import sys
import time
import traceback
from collections import defaultdict
from contextlib import contextmanager, nullcontext
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))  # before: it has a `testbed`, too

import keras
import numpy as np
from resumable import Results
from testbed import TESTBED

import keras_initlab
from keras_initlab._keras.replacing import all_replaced
from keras_initlab._keras.running import Listener, listening, normalizing_by_batch

ADDED = ("bias", "beta", "gamma", "scale", "offset", "sink")
WORST = 40


# ---- one model ------------------------------------------------------------------


class Heard(Listener):
    """Notes the root mean square and the std of each kernel's outputs."""

    def __init__(self, found):
        super().__init__(found)
        self.uses = defaultdict(list)

    def on_product(self, product):
        values = numbers(product.output)
        figures = [float(np.sqrt(np.mean(values**2))), float(values.std())]
        self.uses[id(product.kernel.variable)].append(figures)
        return product.output


def numbers(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


@contextmanager
def hearing_layers(found):
    """Adds `(name, output)` of every layer without layers inside, as it runs."""
    call = keras.Layer.__call__

    def called(layer, *args, **kwargs):
        output = call(layer, *args, **kwargs)
        if not list(layer._flatten_layers(include_self=False)):
            found.extend(
                (layer.path, tensor)
                for tensor in keras.tree.flatten(output)
                if keras.ops.is_tensor(tensor)
                and not isinstance(tensor, keras.KerasTensor)
                and "float" in keras.backend.standardize_dtype(tensor.dtype)
                and math.prod(tensor.shape) > 1
            )
        return output

    keras.Layer.__call__ = called
    try:
        yield
    finally:
        keras.Layer.__call__ = call


def run(model, inputs, advice, vocabulary, by_batch=True):
    """What is measured in one pass, and each kernel's uses; the model stays."""
    heard = Heard([row.kernel.kernel for row in advice])
    found, values = [], values_of(model)
    hooks = all_replaced(normalizing_by_batch(model)) if by_batch else nullcontext()
    with hooks, hearing_layers(found), listening(model, heard):
        outputs = model(inputs)
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)  # moving averages and seeds
    outputs = [one for one in keras.tree.flatten(outputs) if keras.ops.is_tensor(one)]
    last = {id(tensor) for tensor in outputs}
    hidden = [
        (float(numbers(tensor).std()), path)
        for path, tensor in found
        if id(tensor) not in last
    ]
    finite = [(std, str(path)) for std, path in hidden if math.isfinite(std)]
    result = {
        "largest": max(finite, default=None),
        "smallest": min(finite, default=None),
        "not_finite": len(hidden) - len(finite),
        "outputs": [float(numbers(one).std()) for one in outputs],
    }
    if vocabulary is not None:
        result["loss"] = loss_of(outputs, vocabulary)
    return result, heard.uses


def loss_of(outputs, vocabulary):
    """The mean cross entropy on targets drawn evenly."""
    logits = next(numbers(one) for one in outputs if one.shape[-1] == vocabulary)
    logits = logits.reshape(-1, vocabulary)
    # Not the seed of the inputs: a tied table would know them.
    targets = np.random.default_rng(1000).integers(0, vocabulary, len(logits))
    logits -= logits.max(axis=-1, keepdims=True)
    normalizer = np.log(np.exp(logits).sum(axis=-1))
    return float(np.mean(normalizer - logits[np.arange(len(logits)), targets]))


def findings(model):
    return [
        [one.kind, one.path, one.measured, list(one.expected)]
        for one in keras_initlab.audit(model)
    ]


def values_of(model):
    return [np.array(keras.ops.convert_to_numpy(one)) for one in model.variables]


def are_equal(one, other):
    pairs = zip(one, other, strict=True)
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


class Clock:
    """Notes what took how long, and at what it stopped."""

    def __init__(self, result):
        self.result = result

    @contextmanager
    def __call__(self, name):
        began = time.perf_counter()
        self.result["stage"] = name
        yield
        seconds = self.result.setdefault("seconds", {})
        seconds[name] = round(time.perf_counter() - began, 2)


def measure(name, result):
    """Fills in a result, as far as it gets."""
    foreign, clock = TESTBED[name], Clock(result)
    result["kind"] = foreign.kind
    keras.utils.set_random_seed(0)
    with clock("build"):
        model = foreign.make()
    inputs = foreign.inputs()
    with clock("run"):
        model(inputs)
    with clock("recommend"):
        advice = keras_initlab.recommend(model)
    result["weights"] = int(model.count_params())
    with clock("heard before"):
        result["library"], before = run(model, inputs, advice, foreign.vocabulary)
    with clock("audit before"):
        result["audit_before"] = findings(model)
    values = values_of(model)
    with clock("apply"):
        try:
            applied = advice.apply(seed=0)
        except keras_initlab.TrainedWeightsError as error:  # no training has been
            result["refused"] = str(error)
            applied = advice.apply(seed=0, overwrite=True)
    with clock("heard after"):
        result["ours"], after = run(model, inputs, advice, foreign.vocabulary)
    has_batch_norm = bool(normalizing_by_batch(model))
    inferred = after
    if has_batch_norm:
        with clock("heard by moving averages"):
            result["ours_inferred"], inferred = run(
                model, inputs, advice, foreign.vocabulary, by_batch=False
            )
    result["rows"] = [row_of(row, before, after, inferred) for row in advice]
    result["changed_added"] = changed_added(model, advice, values)
    drawn = {id(row.kernel.variable) for row in advice}
    result["without_row"] = [
        [variable.path, list(variable.shape)]
        for variable in model.trainable_variables
        if len(variable.shape) > 1 and id(variable) not in drawn
    ]
    with clock("audit after"):
        result["audit_after"] = findings(model)
    with clock("undo"):
        applied.undo()
        result["undo"] = are_equal(values, values_of(model))
    del result["stage"]


def row_of(row, before, after, inferred):
    key = id(row.kernel.variable)
    return {
        "path": row.path,
        "role": row.role,
        "shape": list(row.shape),
        "meets": row.activation,
        "initializer": type(row.initializer).__name__,
        "confidence": row.confidence,
        "is_known": row.kernel.kernel.is_known,
        "meant": float(row.std) if row.initializer is not None else None,
        "before": before.get(key, []),
        "after": after.get(key, []),
        "inferred": inferred.get(key, []),
    }


def changed_added(model, advice, values):
    """Paths of written weights that are vectors, or named as what is only added.

    Each with whether it is the bias of a kernel that has a row.
    """
    own = {id(row.kernel.bias) for row in advice if row.kernel.bias is not None}
    trainable = {id(variable) for variable in model.trainable_variables}
    return [
        [variable.path, list(variable.shape), id(variable) in own]
        for variable, former in zip(model.variables, values, strict=True)
        if id(variable) in trainable
        and (len(variable.shape) < 2 or any(w in variable.name for w in ADDED))
        and not are_equal([former], [np.array(keras.ops.convert_to_numpy(variable))])
    ]


def plain(value):
    """The same with None for what is no finite number, which JSON does not have."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def send_result(name, pipe):
    """Measures a model here, and sends the result."""
    result = {}
    try:
        measure(name, result)
    except Exception as error:
        stage = result.pop("stage", "")
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        text = " ".join(str(error).split())[:400]
        result["error"] = f"{stage}: {type(error).__name__}: {text} ({place})"
    pipe.send(plain(result))


# ---- all models -----------------------------------------------------------------


def processes():
    """How a model gets a process of its own.

    Importing takes longer than measuring, so with PyTorch it is done once, before
    forking; the other backends have threads by then.
    """
    if keras.backend.backend() != "torch":
        return multiprocessing.get_context("spawn")
    for library in {foreign.library for foreign in TESTBED.values()}:
        if importlib.util.find_spec(library):
            importlib.import_module(library)
    return multiprocessing.get_context("fork")


def measured_apart(context, name, timeout):
    """The result of a model that is measured in a process of its own."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_result, args=(name, sender))
    process.start()
    sender.close()
    try:
        if receiver.poll(timeout):
            return receiver.recv()
        return {"error": f"timeout: longer than {timeout:.0f} s"}
    except EOFError:
        process.join()
        return {"error": f"crash: exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def ratios_of(line, which="after"):
    """`(ratio, row)` of every kernel that was heard; None for what is not finite."""
    for row in line.get("rows", ()):
        if row["meant"] and row[which]:
            std = row[which][0][1]
            yield (None if std is None else std / row["meant"]), row


def distance(ratio):
    """How far a ratio is from 1, as a factor of at least 1."""
    if ratio is None or ratio <= 0:
        return math.inf
    return max(ratio, 1 / ratio)


def share(distances, most):
    if not distances:
        return "-"
    return f"{sum(one <= most for one in distances) / len(distances):.0%}"


def show(figure):
    return "-" if figure is None else f"{figure:.3g}"


def wrongly_drawn(line):
    """Added weights that were written and are no kernel's own bias."""
    return [path for path, _, is_own in line.get("changed_added", ()) if not is_own]


def summary_of(line):
    """One line on a model."""
    name = line["model"]
    if "undo" not in line:
        return f"{name:28} {line['error'][:150]}"
    ours = [(distance(ratio), row["path"]) for ratio, row in ratios_of(line)]
    theirs = [distance(ratio) for ratio, _ in ratios_of(line, "before")]
    factor, path = max(ours, default=(math.nan, "-"))
    distances = [one for one, _ in ours]
    before, after = line["library"], line["ours"]
    ends = [
        show(one[which][0] if one[which] else None)
        for which in ("largest", "smallest")
        for one in (before, after)
    ]
    losses = ""
    if "loss" in after:
        even = math.log(TESTBED[name].vocabulary)
        losses = f"  loss {show(before['loss'])} → {show(after['loss'])} ({even:.3g})"
    counts = (
        f"{name:28} {len(line['rows']):3} kernels ({len(ours)} heard)"
        f"  in ×2: {share(theirs, 2):>4} → {share(distances, 2):>4}"
        f"  in ¼: {share(distances, 1.25):>4}"
        f"  hidden ≤ {ends[0]} → {ends[1]}, ≥ {ends[2]} → {ends[3]}"
        f"  audit {len(line['audit_before'])} → {len(line['audit_after'])}"
        f"  undo {'exact' if line['undo'] else 'NOT EXACT'}"
        f"  no row {len(line['without_row'])}"
        f"  added drawn {len(wrongly_drawn(line))}{losses}"
    )
    refused = "; refused at first: looks trained" if "refused" in line else ""
    return f"{counts}\n{'':29}worst ×{factor:.3g} at {path}{refused}"


def totals_of(lines):
    """What all models have in common."""
    whole = [line for line in lines if "undo" in line]
    kernels = sum(len(line["rows"]) for line in whole)
    pairs = [pair for line in whole for pair in ratios_of(line)]
    theirs = [
        distance(ratio) for line in whole for ratio, _ in ratios_of(line, "before")
    ]
    ours = [distance(ratio) for ratio, _ in pairs]
    yield f"{len(whole)} of {len(lines)} models; {kernels} kernels, {len(pairs)} heard"
    inferred = [
        distance(ratio) for line in whole for ratio, _ in ratios_of(line, "inferred")
    ]
    for heading, found in (
        ("the library's", theirs),
        ("ours", ours),
        ("ours by moving averages", inferred),
    ):
        yield (
            f"  {heading}: {share(found, 1.25)} within a quarter, {share(found, 2)}"
            f" within a factor of 2, {share(found, 10)} within 10"
        )
    for heading, key in (("confidence", "confidence"), ("role", "role")):
        groups = defaultdict(list)
        for ratio, row in pairs:
            groups[row[key]].append(distance(ratio))
        for group, found in sorted(groups.items(), reverse=True):
            yield (
                f"  {heading} {group}: {len(found)} kernels, {share(found, 1.25)}"
                f" within a quarter, {share(found, 2)} within a factor of 2"
            )
    for key in ("audit_before", "audit_after"):
        kinds = defaultdict(int)
        for line in whole:
            for kind, *_ in line[key]:
                kinds[kind] += 1
        clean = sum(not line[key] for line in whole)
        yield f"{key}: {dict(kinds)}; nothing in {clean} models"
    yield f"undo exact: {sum(line['undo'] for line in whole)} of {len(whole)}"
    drawn = [path for line in whole for path in wrongly_drawn(line)]
    yield f"added weights drawn that are no kernel's bias: {len(drawn)}"
    without = sum(len(line["without_row"]) for line in whole)
    yield f"trainable weights of two axes or more without a row: {without}"


def print_summary(lines):
    for line in lines:
        print(summary_of(line))
    print()
    for text in totals_of(lines):
        print(text)
    print(f"\nThe {WORST} kernels farthest from what is meant")
    pairs = [
        (distance(ratio), line["model"], row)
        for line in lines
        if "undo" in line
        for ratio, row in ratios_of(line)
    ]
    for factor, name, row in sorted(pairs, key=lambda pair: -pair[0])[:WORST]:
        print(
            f"  ×{factor:<8.3g} {name}: {row['path']} ({row['role']}, {row['shape']}, "
            f"conf. {row['confidence']}) meant {show(row['meant'])}, "
            f"measured {show(row['after'][0][1])}"
        )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("testbed.jsonl"))
    parser.add_argument("--only", nargs="+", choices=TESTBED, default=list(TESTBED))
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds a model")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args(arguments)
    backend = keras.backend.backend()
    results, context = Results(options.out), None
    for name in [] if options.table else options.only:
        asked = {"model": name, "backend": backend}
        if results.has(asked) or not TESTBED[name].is_possible:
            continue
        context = context or processes()
        began = time.perf_counter()
        outcome = measured_apart(context, name, options.timeout)
        outcome["wall"] = round(time.perf_counter() - began, 1)
        results.add(asked, outcome)
        print(
            f"{name}: {outcome.get('error', 'done')}, {outcome['wall']} s", flush=True
        )
    lines = [
        line
        for line in results.lines
        if line["backend"] == backend and line["model"] in options.only
    ]
    print_summary(lines)
    return lines


if __name__ == "__main__":
    main()
