import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tuner import seeds

SEEDS = st.integers(0, 2**31 - 1)


@given(seed=SEEDS, epoch=st.integers(0, 1000), n=st.integers(1, 300))
def test_a_batch_order_is_a_permutation_and_a_function_of_its_arguments(seed, epoch, n):
    order = seeds.batch_order(seed, epoch, n)
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(order, seeds.batch_order(seed, epoch, n))


@given(seed=SEEDS, other=SEEDS)
def test_seeds_of_different_things_differ(seed, other):
    drawn = [seeds.weight_seed(seed, layer) for layer in range(20)]
    drawn += [seeds.mask_seed(seed, layer, epoch) for layer in range(4) for epoch in range(5)]
    drawn.append(seeds.split_seed(seed))
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= value < 2**31 for value in drawn)
    if other != seed:
        assert seeds.weight_seed(seed, 0) != seeds.weight_seed(other, 0)


def test_epochs_have_their_own_order():
    orders = [tuple(seeds.batch_order(0, epoch, 50)) for epoch in range(10)]
    assert len(set(orders)) == 10
