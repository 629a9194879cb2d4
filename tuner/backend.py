"""Keras on TensorFlow, imported without the lines that TensorFlow prints before its log can be configured.

TensorFlow's shared libraries write to the file descriptor of stderr while they load ("oneDNN custom operations are on",
"Could not find cuda drivers"), whatever the log level says. Every other module takes ``keras`` and ``tensorflow`` from
here.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hold back what is written to file descriptor 2; show it after all if the block raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


# 3 leaves only fatal messages: on a machine without a GPU even "failed call to cuInit" is logged as an error.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if "tensorflow" in sys.modules:
    import keras
    import tensorflow
else:
    with _silent_stderr():
        import keras
        import tensorflow


@contextmanager
def expected_tracing() -> Iterator[None]:
    """Keep TensorFlow from calling it a mistake that every new network is traced; short fits look like one to it."""

    def unexpected(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = tensorflow.get_logger()
    logger.addFilter(unexpected)
    try:
        yield
    finally:
        logger.removeFilter(unexpected)


def optimizer_classes() -> dict[str, type]:
    """Return the optimizers of Keras by lower-case name; ``keras.optimizers.get`` does not know all of them."""
    base, wrapper = keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer
    classes = (thing for thing in vars(keras.optimizers).values() if isinstance(thing, type))
    return {c.__name__.lower(): c for c in classes if issubclass(c, base) and c not in (base, wrapper)}


__all__ = ["expected_tracing", "keras", "optimizer_classes", "tensorflow"]
