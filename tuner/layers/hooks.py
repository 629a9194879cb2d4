"""Looking into layers while they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(layer: Any, name: str, around: Callable[[Any], Any]) -> Iterator[None]:
    """Put something around an attribute of a layer for a while, past Keras, which keeps book of what is set."""
    own = vars(layer).get(name)
    original = getattr(layer, name)
    object.__setattr__(layer, name, around(original))
    try:
        yield
    finally:
        if own is None:
            object.__delattr__(layer, name)
        else:
            object.__setattr__(layer, name, own)
