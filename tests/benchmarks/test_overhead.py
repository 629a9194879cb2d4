"""What does a trial of a long study cost beside its training, and does that grow?"""

import time
from itertools import pairwise

import numpy as np
import pytest
from digits import search, warm_up
from measuring import compiling, scaled, told, training_watched, uncovered
from table import Row

from tuner.search import ROUND_SIZE

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # MLflow 3.17 on SQLAlchemy 2.1
]

N_TRIALS = scaled(500, least=6 * ROUND_SIZE)
FLAT = 2 / 3  # a noisy machine's medians of few rounds can be off by so much


def test_overhead_is_small_and_does_not_grow(tracker, monkeypatch, record):
    warm_up(tracker)
    spans, ends = training_watched(monkeypatch), []
    with compiling() as compiled:
        start = time.perf_counter()
        search(tracker, N_TRIALS, epochs=1, callbacks=[lambda study, trial: ends.append(time.perf_counter())])
        end = time.perf_counter()

    # The trials of a round are proposed, and may be trained, together: only its mean is the cost of one of them.
    bounds = [start, *ends[ROUND_SIZE - 1 :: ROUND_SIZE]]
    overheads = [1000 * uncovered(spans, *bound) / ROUND_SIZE for bound in pairwise(bounds)]
    early, late = np.median(overheads[1:5]), np.median(overheads[-5:])  # 8 to 40, and the last 40
    whole = 1000 * uncovered(spans, start, end) / N_TRIALS
    row = Row(
        f"overhead outside training, digits study of {N_TRIALS} trials of 1 epoch, Adam",
        "its own at trial 10",
        "ms per trial",
        float(late),
        float(early),
        ratio=float(early / late),
        target="≤ 50 ms, flat",
        met=bool(late <= 50 and early / late >= FLAT),
        remark=f"medians over the rounds of trials 8 to 40, and of the last 40; {whole:.3g} ms per trial over the "
        f"whole study, the end of MLflow's writing included; {1000 * (end - start) / N_TRIALS:.3g} ms with training; "
        f"compiling {told(compiled)}",
    )
    record(row, at_least=FLAT / 2)
