import numpy as np
import pytest
from tensorflow.python.summary.summary_iterator import summary_iterator

from keras_initlab.callbacks import TensorBoardLog


def scalars(directory):
    """`{name: {step: value}}` of all event files, as TensorBoard reads them."""
    import tensorflow as tf

    found = {}
    for file in sorted(directory.glob("events*")):
        for event in summary_iterator(str(file)):
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, {})[event.step] = number
    return found


def test_scalars_are_written(tmp_path):
    log = TensorBoardLog(tmp_path / "run")
    log({"grad_norm": 0.5, "grad_norm/block/dense_1": np.float32(0.25)}, 0)
    log({"grad_norm": 2.0}, np.int64(10))
    log.close()
    assert scalars(tmp_path / "run") == {
        "grad_norm": {0: 0.5, 10: 2.0},
        "grad_norm/block/dense_1": {0: 0.25},
    }


def test_it_goes_on_after_close(tmp_path):
    log = TensorBoardLog(tmp_path)
    log({"a": 1.0}, 0)
    log.close()
    log({"a": 2.0}, 1)
    log.close()
    log.close()
    assert scalars(tmp_path) == {"a": {0: 1.0, 1: 2.0}}


def test_nothing_is_written_before_the_first_call(tmp_path):
    TensorBoardLog(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match=r"of `directory` .*: directory='.*none/run'"):
        TensorBoardLog(tmp_path / "none" / "run")


def test_bad_flush_seconds(tmp_path):
    with pytest.raises(ValueError, match=r"Received: flush_seconds=0\."):
        TensorBoardLog(tmp_path, flush_seconds=0)
