"""Which tests run every day, and which with the slow ones.

Of a long table of cases each of which compiles a model, the first few are asked every
day, all of them with `-m slow`: no more than 2, or `MOST_PER_TABLE` where that is
set. On TensorFlow, the tests that take seconds each wait for `-m long`, which
`.ci/run` has a stage for. On JAX, where nearly all time goes into compiling, it is the
first of every table; and what does not depend on the backend, or is the callbacks'
rules, is left to the slow tests there.
"""

import math
import os
from collections import Counter

import pytest

EVERYDAY = {
    "test_activation_stats.py::test_dense": 1,
    "test_agreement.py::test_a_model_that_was_started_loads_without_this_package": 1,
    "test_dead_relus.py::test_a_unit_that_lives_at_masked_positions_only_is_dead": 1,
    "test_gradient_norms.py::test_clipped_and_updates_leave_training_as_it_is": 1,
    "test_gradient_norms.py::test_steps_per_execution": 1,
    "test_gradient_norms.py::test_two_optimizers_in_a_custom_train_step": 1,
    "test_log_faults.py::test_killed_before_any_system_call": 1,
    "test_observe.py::test_a_train_step_of_the_users": 1,
    "test_observe.py::test_errors_in_the_users_functions_come_through": 1,
    "test_own_calls.py::test_training_is_bit_identical": 1,
}
LONG = {
    "test_agreement.py::test_a_model_that_was_started_loads_without_this_package",
    "test_alerts.py::test_ordinary_training_raises_no_alert",
    "test_awkward.py::test_nothing_but_looking",
    "test_compare_elsewhere.py::test_what_an_executor_cancels_is_told",
    "test_contract.py::test_any_kernel",
    "test_data_workers.py::test_workers_during_and_after_an_observed_fit",
    "test_demonstrations.py::test_batch_normalization_makes_up_for_bad_weights",
    "test_gains.py::test_true_fan_in_keeps_the_signal_of_a_quantized_layer",
    "test_golden_reports.py::test_every_backend_recommends_what_the_file_says",
    "test_golden_reports.py::test_every_backend_shows_the_table_that_the_file_holds",
    "test_golden_reports.py::test_tables_hold_together",
    "test_growth.py::test_models_that_are_called_twice_by_models_that_are_called_twice",
    "test_growth.py::test_twice_the_layers_are_twice_the_work",
    "test_imports.py::test_importing_loads_nothing_that_only_some_need",
    "test_interruptions.py::test_a_few_interruptions",
    "test_long_observation.py::test_nothing_keeps_model_or_callback",
    "test_mirrored.py::test_a_hundred_layers_that_are_built_by_keras",
    "test_modes.py::test_replicas_under_a_scaled_loss",
    "test_modes.py::test_some_units_fire_on_one_replica_only",
    "test_modes.py::test_statistics_of_replicas_are_those_of_the_whole_batch",
    "test_modes.py::test_the_table_is_true",
    "test_modes.py::test_replicas_train_the_same_weights_with_and_without_the_callbacks",
    "test_observe.py::test_long_training_neither_traces_again_nor_grows",
    "test_one_word.py::test_all_speak_with_one_voice",
    "test_own_calls.py::test_every_kind_of_activation_is_heard",
    "test_own_calls.py::test_training_is_bit_identical",
    "test_packaging.py::test_the_wheel_holds_every_source_file",
    "test_planted_faults.py::test_nan_that_arises_in_a_step_going_backward",
    "test_planted_faults.py::test_without_a_fault_no_alert",
    "test_recycler.py::test_a_model_that_the_first_step_builds",
    "test_threads.py::test_overlapping_fits_leave_all_as_it_was_and_see_their_own",
    "test_trainability.py::test_quick_runs_and_resumes",
}
SLOW_ON_JAX = {
    *("test_activation_stats.py", "test_alerts.py", "test_audit.py"),
    *("test_benchmarks.py", "test_cli.py", "test_compare_starts.py"),
    *("test_compare_training.py", "test_examples.py", "test_frames.py"),
    *("test_lives.py", "test_planted_faults.py", "test_tensorboard.py"),
    *("test_gains.py", "test_imports.py", "test_mirrored.py"),
    *("test_calibrated_policy.py", "test_trainability.py"),
}
WHOLE_ON_JAX = {
    "test_golden_reports.py::test_every_backend_recommends_what_the_file_says"
}
WHOLE = {"test_docstrings.py"}  # compiles next to nothing, and is the public word
MOST = 2


def mark(items, backend):
    """Marks what does not run every day."""
    asked = Counter()
    for item in items:
        name = f"{item.path.name}::{item.originalname}"
        if item.get_closest_marker("slow"):
            continue
        asked[name] += 1
        if asked[name] > _most(item.path.name, name, backend):
            item.add_marker(pytest.mark.slow)
        elif name in LONG and backend == "tensorflow":
            item.add_marker(pytest.mark.long)


def _most(file, name, backend):
    if file in WHOLE and backend == "tensorflow":
        return math.inf
    if backend != "jax" or name in WHOLE_ON_JAX:
        most = float(os.environ.get("MOST_PER_TABLE", MOST))
        return min(EVERYDAY.get(name, most), most)
    return 0 if file in SLOW_ON_JAX else 1
