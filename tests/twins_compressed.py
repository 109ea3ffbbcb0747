"""Plain-NumPy twins of the methods that relay or compress, as in `twins`; their random numbers are drawn by JAX."""

import jax
import numpy as np


def combine(W, x, i):
    """What node i makes of its neighbours' messages: sum_j W[i][j] x_j."""
    return sum(W[i][j] * x[j] for j in x if W[i][j] != 0)


def neighbors(W, i):
    return [j for j in range(len(W)) if j != i and W[i][j] != 0]


class Relay:
    """RelaySum by messages: everything but what came from the receiver, of the step before."""

    def __init__(self, W, overlap):
        self.near = {i: neighbors(W, i) for i in range(len(W))}
        self.overlap = overlap
        self.heard = {(j, i): (0.0, 0) for i in self.near for j in self.near[i]}  # from j at i

    def __call__(self, z):
        """Node -> (sum, how many)."""
        sent = {}
        for i in z:
            for j in self.near[i]:
                others = [self.heard[k, i] for k in self.near[i] if k != j]
                sent[i, j] = (z[i] + sum(m for m, _ in others), 1 + sum(c for _, c in others))
        used = self.heard if self.overlap else sent
        sums = {i: z[i] + sum(used[j, i][0] for j in self.near[i]) for i in z}
        counts = {i: 1 + sum(used[j, i][1] for j in self.near[i]) for i in z}
        self.heard = sent
        return {i: (sums[i], counts[i]) for i in z}


def relay_sgd(start, gradient, weights, rate, steps, overlap=False, share=1.0):
    """What is missing of the n models is filled in by the first one."""
    x, path, n = dict(start), [], len(start)
    relay = Relay(weights(0), overlap)
    for t in range(steps):
        sums = relay({i: share * x[i] - rate(t) * gradient(i, x[i]) for i in x})
        x = {i: (1 - share) * x[i] + (sums[i][0] + (n - sums[i][1]) * share * start[i]) / n for i in x}
        path.append(x)
    return path


def relay_sgd_grad(start, gradient, weights, rate, steps, overlap=False):
    x, path, n = dict(start), [], len(start)
    relay = Relay(weights(0), overlap)
    for t in range(steps):
        sums = relay({i: -rate(t) * gradient(i, x[i]) for i in x})
        x = {i: x[i] + sums[i][0] / n for i in x}
        path.append(x)
    return path


def folded(key, *numbers):
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


def power_gossip(start, gradient, weights, rate, steps, rank=1):
    """Vectors as 2 x 2 matrices; rank 1, one round a step, from key 0 folded with the edge, round 0, tensor 0."""
    assert rank == 1
    x, path = dict(start), []
    W = weights(0)
    edges = [(i, j) for i in x for j in x if i < j and W[i][j] != 0]
    p, q = {}, {}
    for i, j in edges:
        first, second = jax.random.split(folded(jax.random.key(0), i, j, 0, 0))
        p[i, j], q[i, j] = (np.asarray(jax.random.normal(key, (2,))) for key in (first, second))
    for t in range(steps):
        matrix = {i: x[i].reshape(2, 2) for i in x}
        moved = {i: matrix[i].copy() for i in x}
        for i, j in edges:
            difference = matrix[j] - matrix[i]  # the larger node's minus the smaller one's
            if t % 2 == 0:
                v = q[i, j] / np.linalg.norm(q[i, j])
                p[i, j], q[i, j] = difference @ v, v
            else:
                v = p[i, j] / np.linalg.norm(p[i, j])
                p[i, j], q[i, j] = v, difference.T @ v
            approximation = np.outer(p[i, j], q[i, j])
            moved[j] -= W[i][j] * approximation
            moved[i] += W[i][j] * approximation
        x = {i: moved[i].ravel() - rate(t) * gradient(i, x[i]) for i in x}
        path.append(x)
    return path


def power_sgd(start, gradient, weights, rate, steps, rank=1):
    """Vectors as 2 x 2 matrices; rank 1, from the second of two draws of key 0 folded with step 0 and tensor 0."""
    assert rank == 1
    x, path, n = dict(start), [], len(start)
    _, second = jax.random.split(folded(jax.random.key(0), 0, 0))
    q = np.asarray(jax.random.normal(second, (2, 1)))
    error = {i: np.zeros((2, 2)) for i in x}
    for t in range(steps):
        delta = {i: gradient(i, x[i]).reshape(2, 2) + error[i] for i in x}
        p = sum(delta[i] @ q for i in x) / n
        p = p / np.linalg.norm(p)
        own = {i: delta[i].T @ p for i in x}
        q = sum(own.values()) / n
        error = {i: delta[i] - p @ own[i].T for i in x}
        x = {i: x[i] - rate(t) * (p @ q.T).ravel() for i in x}
        path.append(x)
    return path


def top_half(v):
    """The larger half of the entries."""
    kept = np.zeros_like(v)
    largest = np.argsort(-np.abs(v), kind="stable")[: len(v) // 2]
    kept[largest] = v[largest]
    return kept


def scaled_sign(v):
    return np.where(v >= 0, 1.0, -1.0) * np.abs(v).mean()


def compressed_sgd(compress):
    def twin(start, gradient, weights, rate, steps, compressor=None, feedback=True):
        x, path, n = dict(start), [], len(start)
        error = {i: np.zeros_like(x[i]) for i in x}
        for t in range(steps):
            meant = {i: gradient(i, x[i]) + error[i] for i in x}
            sent = {i: compress(meant[i], i, t) for i in x}
            if feedback:
                error = {i: meant[i] - sent[i] for i in x}
            x = {i: x[i] - rate(t) * sum(sent.values()) / n for i in x}
            path.append(x)
        return path

    return twin


def four_levels(v, node, step):
    """Random rounding of |v_c| / |v| to quarters; the key is split before each draw."""
    key = folded(jax.random.key(0), node, 0)
    for _ in range(step + 1):
        key, own = jax.random.split(key)
    place = 4 * np.abs(v) / np.linalg.norm(v)
    up = np.asarray(jax.random.uniform(own, v.shape)) < place - np.floor(place)
    return np.sign(v) * np.linalg.norm(v) * (np.floor(place) + up) / 4


def signum(start, gradient, weights, rate, steps, momentum=0.9):
    x, path = dict(start), []
    m = {i: np.zeros_like(x[i]) for i in x}
    for t in range(steps):
        m = {i: momentum * m[i] + (1 - momentum) * gradient(i, x[i]) for i in x}
        vote = np.sign(sum(np.sign(m[i]) for i in x))
        x = {i: x[i] - rate(t) * vote for i in x}
        path.append(x)
    return path


def choco_sgd(start, gradient, weights, rate, steps, compressor=None, consensus_step=1.0):
    x, path = dict(start), []
    known = {i: np.zeros_like(x[i]) for i in x}
    for t in range(steps):
        half = {i: x[i] - rate(t) * gradient(i, x[i]) for i in x}
        known = {i: known[i] + top_half(half[i] - known[i]) for i in x}
        x = {i: half[i] + consensus_step * (combine(weights(t), known, i) - known[i]) for i in x}
        path.append(x)
    return path


def deep_squeeze(start, gradient, weights, rate, steps, compressor=None, consensus_step=1.0):
    x, path = dict(start), []
    error = {i: np.zeros_like(x[i]) for i in x}
    for t in range(steps):
        half = {i: x[i] - rate(t) * gradient(i, x[i]) for i in x}
        sent = {i: top_half(half[i] + error[i]) for i in x}
        error = {i: half[i] + error[i] - sent[i] for i in x}
        x = {i: half[i] + consensus_step * (combine(weights(t), sent, i) - sent[i]) for i in x}
        path.append(x)
    return path


def difference_compression(start, gradient, weights, rate, steps, compressor=None):
    x, path = dict(start), []
    for t in range(steps):
        aim = {i: combine(weights(t), x, i) - rate(t) * gradient(i, x[i]) for i in x}
        x = {i: x[i] + top_half(aim[i] - x[i]) for i in x}
        path.append(x)
    return path


def moniqua(start, gradient, weights, rate, steps, theta=1.0, consensus_step=1.0, bits=2):
    """Rounding to the nearest of 2^bits levels."""
    x, path = dict(start), []
    step = 1 / (2**bits - 1)
    width = 2 * theta / (1 - 2 * step)

    def centered(z, period):
        return (z + period / 2) % period - period / 2

    for t in range(steps):
        W = weights(t)
        half = {i: x[i] - rate(t) * gradient(i, x[i]) for i in x}
        code = {i: np.floor((centered(half[i] / width, 1) + 0.5) / step + 0.5) * step - 0.5 for i in x}
        x = {}
        for i in half:
            own = code[i] * width - centered(half[i], width) + half[i]
            heard = {j: centered(code[j] * width - half[i], width) + half[i] for j in neighbors(W, i)}
            x[i] = half[i] + consensus_step * sum(W[i][j] * (heard[j] - own) for j in heard)
        path.append(x)
    return path


TWINS = {
    "choco_sgd": choco_sgd,
    "deep_squeeze": deep_squeeze,
    "difference_compression": difference_compression,
    "ef_sign_sgd": compressed_sgd(lambda v, node, step: scaled_sign(v)),
    "ef_top_k": compressed_sgd(lambda v, node, step: top_half(v)),
    "moniqua": moniqua,
    "power_gossip": power_gossip,
    "power_sgd": power_sgd,
    "qsgd": compressed_sgd(four_levels),
    "relay_mix": relay_sgd,
    "relay_sgd": relay_sgd,
    "relay_sgd_grad": relay_sgd_grad,
    "relay_sgd_overlap": relay_sgd,
    "signum": signum,
}
