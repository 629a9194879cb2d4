"""MLflow's autologging, switched off while a search trains; importing this file does not import MLflow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def autologging_off() -> Iterator[None]:
    """Keep a user's ``mlflow.autolog()`` from making a run of every fold; what was switched on is on again afterwards.

    Nothing happens where MLflow was not imported, and searches may be nested.
    """
    utils = sys.modules.get("mlflow.utils.autologging_utils")
    # MLflow's own switch ends with "on" whatever it was before: an inner search must leave the outer one's alone.
    if utils is None or utils._AUTOLOGGING_GLOBALLY_DISABLED:
        yield
    else:
        with utils.disable_autologging():
            yield
