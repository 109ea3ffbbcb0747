"""experiments.streams and experiments.augment: orders that are permutations and uniform; crops that are windows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_refused
from scipy import stats

from experiments import augment, streams

KEYS = 5000


@jax.jit
def _stream(key, steps, sizes):
    return jax.vmap(lambda step: streams.shuffled(key, step, sizes, 1)[:, 0])(steps)


def test_every_epoch_of_every_size_is_a_permutation():
    sizes = np.arange(1, 301)
    drawn = np.asarray(_stream(jax.random.key(0), jnp.arange(900), jnp.asarray(sizes)))
    for node, size in enumerate(sizes):
        for epoch in range(3):
            order = drawn[epoch * size : (epoch + 1) * size, node]
            np.testing.assert_array_equal(np.sort(order), np.arange(size))
    # Other orders for other epochs and other nodes of one size.
    assert (drawn[:300, 299] != drawn[300:600, 299]).mean() > 0.9
    twins = np.asarray(_stream(jax.random.key(0), jnp.arange(300), jnp.full(2, 300)))
    assert (twins[:, 0] != twins[:, 1]).mean() > 0.9


def test_batches_cut_one_stream_and_any_step_can_be_asked_for():
    key, sizes, batch = jax.random.key(1), jnp.array([5, 16, 37]), 16
    one_by_one = np.asarray(_stream(key, jnp.arange(20 * batch), sizes))
    at_once = jax.jit(jax.vmap(lambda step: streams.shuffled(key, step, sizes, batch)))(jnp.arange(20))
    np.testing.assert_array_equal(np.asarray(at_once).transpose(0, 2, 1).reshape(-1, 3), one_by_one)
    np.testing.assert_array_equal(streams.shuffled(key, 13, np.array(sizes), batch), at_once[13])
    scanned = jax.lax.scan(lambda step, _: (step + 1, streams.shuffled(key, step, sizes, batch)), 7, length=3)[1]
    np.testing.assert_array_equal(scanned, at_once[7:10])
    lanes = jax.vmap(lambda key: streams.shuffled(key, 2, sizes, batch))(jax.random.split(key, 3))
    assert len({lane.tobytes() for lane in np.asarray(lanes)}) == 3


def test_large_shares_and_late_steps():
    sizes = jnp.array([2**24, 2**24 - 3])
    drawn = np.asarray(streams.shuffled(jax.random.key(0), 2**32 // 4096 - 1, sizes, 4096))
    assert drawn.min() >= 0
    assert (drawn.max(axis=1) < np.asarray(sizes)).all()
    # The last epoch of the second node ends 768 samples before number 2^32.
    assert len(set(drawn[0])) == 4096
    assert len(set(drawn[1, :3328])) == 3328
    assert stats.kstest(drawn[0] / 2**24, "uniform").pvalue > 1e-3


@pytest.fixture(scope="module")
def orders():
    """The first 16 samples of two nodes of m samples, of many keys: m -> [keys, nodes, 16]."""
    keys = jax.random.split(jax.random.key(2), KEYS)
    draw = jax.jit(jax.vmap(lambda key, sizes: streams.shuffled(key, 0, sizes, 16), (0, None)))
    return {m: np.asarray(draw(keys, jnp.full(2, m))) for m in (4, 7, 3400)}


def uniform(cells, count):
    """Chi-square test that cells 0..count-1 are equally likely."""
    assert cells.max() < count
    return stats.chisquare(np.bincount(cells, minlength=count)).pvalue > 1e-3


def test_positions_pairs_and_whole_orders_are_uniform(orders):
    seven, four, many = orders[7][:, 0], orders[4][:, 0], orders[3400][:, 0]
    for place in range(7):
        assert uniform(seven[:, place], 7)
    for first, second in ((0, 1), (2, 6)):
        assert uniform(seven[:, first] * 6 + seven[:, second] - (seven[:, second] > seven[:, first]), 42)
    ranks = {order: rank for rank, order in enumerate(itertools.permutations(range(4)))}
    assert uniform(np.array([ranks[tuple(row)] for row in four[:, :4]]), 24)
    assert uniform(many[:, 0] // 100, 34)
    assert uniform((many[:, 1] - many[:, 0]) % 3400 // 100, 34)


def test_nodes_and_epochs_are_independent(orders):
    seven = orders[7]
    assert uniform(seven[:, 0, 0] * 7 + seven[:, 1, 0], 49)
    assert uniform(seven[:, 0, 0] * 7 + seven[:, 0, 7], 49)
    many = orders[3400] // 425
    assert uniform(many[:, 0, 0] * 8 + many[:, 1, 0], 64)


def test_rounds_suffice_for_every_order_of_few_samples():
    """The law of the shuffle with fair coins, exactly: a Markov chain on the orders, to ROUNDS rounds."""
    for m in (2, 3, 4):
        orders = list(itertools.permutations(range(m)))
        number = {order: i for i, order in enumerate(orders)}
        chain = np.zeros((len(orders), len(orders)))
        for centre in range(m):
            pairs = [(x, (centre - x) % m) for x in range(m) if x < (centre - x) % m]
            for coins in itertools.product((False, True), repeat=len(pairs)):
                image = list(range(m))
                for (x, y), coin in zip(pairs, coins, strict=True):
                    if coin:
                        image[x], image[y] = y, x
                for order in orders:
                    chain[number[order], number[tuple(image[x] for x in order)]] += 1 / m / 2 ** len(pairs)
        law = np.linalg.matrix_power(chain, streams.ROUNDS)[0]
        assert np.abs(law - 1 / len(orders)).sum() / 2 < 1e-5


def test_replaced_is_uniform_and_may_repeat():
    sizes = np.array([3, 40])
    draw = jax.jit(jax.vmap(lambda step: streams.replaced(jax.random.key(3), step, sizes, 10)))
    drawn = draw(jnp.arange(400))
    assert uniform(np.asarray(drawn)[:, 0].ravel(), 3)
    assert uniform(np.asarray(drawn)[:, 1].ravel(), 40)
    np.testing.assert_array_equal(drawn[5], streams.replaced(jax.random.key(3), 5, sizes, 10))


def test_table_looks_up_the_samples_of_a_partition():
    parts = [np.array([7, 2, 4]), np.array([5]), np.array([0, 1])]
    rows = np.take_along_axis(streams.table(parts), np.array([[2, 0], [0, 0], [1, 0]]), axis=1)
    np.testing.assert_array_equal(rows, [[4, 7], [5, 5], [1, 0]])


def test_stream_misuse_is_explained():
    key, sizes = jax.random.key(0), np.array([4, 5])
    assert_refused(lambda: streams.shuffled(jax.random.PRNGKey(0), 0, sizes, 2), "typed JAX key")
    assert_refused(lambda: streams.shuffled(key, 0, np.array([4, 0]), 2), "1..16777216, got 0 to 4")
    assert_refused(lambda: streams.shuffled(key, 0, np.array([4.0]), 2), "integers [n], got float64")
    assert_refused(lambda: streams.replaced(key, 0, sizes, 0), "batch must be a positive integer, got 0")
    assert_refused(lambda: streams.shuffled(key, -1, sizes, 2), "step must lie in 0..2147483647", "got -1")
    assert_refused(lambda: streams.table([np.array([1]), np.array([], int)]), "sizes [1, 0]")


# Augmentation.

IMAGES = np.arange(1.0, 1 + 3 * 5 * 4 * 6 * 2).reshape(3, 5, 4, 6, 2)


def candidates(image, padding, flip):
    """All images that may come out: windows of the padded image, and their mirror images."""
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    height, width = image.shape[:2]
    for u, v in itertools.product(range(2 * padding + 1), repeat=2):
        window = padded[u : u + height, v : v + width]
        yield window
        if flip:
            yield window[:, ::-1]


def which(images, padding, flip):
    """The number of each image among its candidates."""
    found = []
    for image, original in zip(images.reshape(-1, *IMAGES.shape[2:]), itertools.cycle(IMAGES.reshape(15, 4, 6, 2))):
        equal = [np.array_equal(image, candidate) for candidate in candidates(original, padding, flip)]
        assert sum(equal) == 1
        found.append(equal.index(True))
    return np.array(found)


@pytest.mark.parametrize("flip", [False, True])
def test_windows_are_drawn_for_each_image_and_uniformly(flip):
    crop = jax.jit(jax.vmap(lambda key: augment.crop_and_flip(key, jnp.asarray(IMAGES), 1, flip)))
    drawn = which(np.asarray(crop(jax.random.split(jax.random.key(0), 100))), 1, flip)
    count = 18 if flip else 9
    assert uniform(drawn, count)
    assert uniform(drawn[:-1] % 9 * 9 + drawn[1:] % 9, 81)  # from one image to the next


def test_without_padding_and_mirror_nothing_happens():
    same = augment.crop_and_flip(jax.random.key(0), jnp.asarray(IMAGES), 0, flip=False)
    np.testing.assert_array_equal(same, IMAGES)
    single = augment.crop_and_flip(jax.random.key(0), jnp.asarray(IMAGES[0, 0], jnp.float32))
    assert (single.shape, single.dtype) == ((4, 6, 2), jnp.float32)


def test_augmentation_misuse_is_explained():
    assert_refused(lambda: augment.crop_and_flip(jax.random.key(0), jnp.ones((4, 4))), "got (4, 4)")
    assert_refused(lambda: augment.crop_and_flip(jax.random.key(0), jnp.ones((4, 4, 1)), -1), "padding", "got -1")
