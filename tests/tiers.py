"""Which tests run every day, and which with the slow ones.

Of a long table of cases each of which compiles a model, the first few are asked every
day, all of them with `-m slow`: no more than 8, or `MOST_PER_TABLE` where that is
set. On JAX, where nearly all time goes into compiling, it is the first of every table;
and what does not depend on the backend, or is the callbacks' rules, is left to the slow
tests there.
"""

import os
from collections import Counter

import pytest

EVERYDAY = {
    "test_activation_stats.py::test_dense": 1,
    "test_activation_stats.py::test_histograms": 3,
    "test_agreement.py::test_a_model_that_was_started_loads_without_this_package": 1,
    "test_apply.py::test_reset_optimizer_brings_it_back_to_its_start": 3,
    "test_awkward.py::test_nothing_but_looking": 5,
    "test_contract.py::test_distribution": 5,
    "test_contract.py::test_values_are_the_same_in_a_compiled_function": 4,
    "test_copies.py::test_a_copy_has_the_settings": 4,
    "test_copies.py::test_a_copy_holds_the_history_and_goes_its_own_way": 5,
    "test_copies.py::test_logs": 3,
    "test_dead_relus.py::test_a_unit_that_lives_at_masked_positions_only_is_dead": 1,
    "test_dead_relus.py::test_equals_a_replay_of_training": 2,
    "test_dead_relus.py::test_equals_brute_force": 5,
    "test_dead_relus.py::test_equals_brute_force_in_other_modes": 2,
    "test_dead_relus.py::test_only_rectifiers_are_watched": 4,
    "test_dead_relus.py::test_thresholds_equal_brute_force": 6,
    "test_dead_relus.py::test_what_cannot_be_seen_is_nan_and_never_wrong": 4,
    "test_gains.py::test_true_fan_in_keeps_the_signal_of_a_quantized_layer": 2,
    "test_golden_reports.py::test_every_backend_shows_the_table_that_the_file_holds": 5,
    "test_golden_reports.py::test_tables_hold_together": 4,
    "test_gradient_norms.py::test_clipped_and_updates_leave_training_as_it_is": 1,
    "test_gradient_norms.py::test_clipped_norms_are_those_of_clipping_by_hand": 3,
    "test_gradient_norms.py::test_every_precision_trains_as_unobserved": 3,
    "test_gradient_norms.py::test_norms_are_those_of_training_by_hand": 4,
    "test_gradient_norms.py::test_norms_are_unscaled_and_before_clipping": 3,
    "test_gradient_norms.py::test_norms_neither_underflow_nor_overflow": 5,
    "test_gradient_norms.py::test_steps_per_execution": 1,
    "test_gradient_norms.py::test_two_optimizers_in_a_custom_train_step": 1,
    "test_gradient_norms.py::test_update_ratios_are_those_of_snapshots": 3,
    "test_growth.py::test_twice_the_layers_are_twice_the_work": 3,
    "test_hostile_callbacks.py::test_broken_data": 3,
    "test_hostile_callbacks.py::test_training_is_what_it_would_be_and_is_seen": 4,
    "test_interruptions.py::test_a_few_interruptions": 5,
    "test_lives.py::test_the_step_of_a_death_is_exact": 2,
    "test_log_faults.py::test_killed_before_any_system_call": 1,
    "test_long_observation.py::test_nothing_keeps_model_or_callback": 3,
    "test_looking.py::test_a_model_of_the_zoo_is_left_as_it_was": 5,
    "test_mirrored.py::test_a_hundred_dense_layers": 4,
    "test_modes.py::test_the_table_is_true": 6,
    "test_observe.py::test_a_train_step_of_the_users": 1,
    "test_observe.py::test_after_a_failure_nothing_is_left": 2,
    "test_observe.py::test_errors_in_the_users_functions_come_through": 1,
    "test_observe.py::test_optimizer_state_is_bit_identical": 3,
    "test_observe.py::test_weights_are_bit_identical": 2,
    "test_one_word.py::test_all_speak_with_one_voice": 4,
    "test_own_calls.py::test_training_is_bit_identical": 1,
    "test_own_loop.py::test_a_fit_before_between_and_after": 2,
    "test_own_loop.py::test_a_loop_is_observed_and_trains_as_unobserved": 3,
    "test_own_loop.py::test_a_loop_without_an_end_leaves_the_model_free": 4,
    "test_recommend.py::test_50_layers_are_exactly_linear": 2,
    "test_recycler.py::test_nothing_reads_a_new_unit": 6,
    "test_recycler.py::test_only_the_entries_of_planted_units_are_written": 2,
    "test_recycler.py::test_scores_equal_the_definition": 6,
    "test_recycler.py::test_the_schedule": 4,
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
MOST = 8


def mark_slow(items, backend):
    """Marks what does not run every day."""
    asked = Counter()
    for item in items:
        name = f"{item.path.name}::{item.originalname}"
        if item.get_closest_marker("slow"):
            continue
        asked[name] += 1
        if asked[name] > _most(item.path.name, name, backend):
            item.add_marker(pytest.mark.slow)


def _most(file, name, backend):
    if backend != "jax" or name in WHOLE_ON_JAX:
        most = float(os.environ.get("MOST_PER_TABLE", MOST))
        return min(EVERYDAY.get(name, most), most)
    return 0 if file in SLOW_ON_JAX else 1
