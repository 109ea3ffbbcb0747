r"""Plain-NumPy twins of the registered methods: loops over nodes and neighbours, in the forms that papers print.

A twin is `twin(start, gradient, weights, rate, steps, **hyperparameters)` -> [x^1, ..., x^T], where `start` and every
x are dictionaries of one array a node, `gradient(i, x_i)` is node i's gradient, `weights(t)[i][j]` what i gives to a
message from j at step t, and `rate(t)` the step size. The two-step forms of EXTRA, D2 and exact diffusion hold for
fixed weights only, which is all that those methods admit.
"""

import numpy as np


def combine(W, x, i):
    """What node i makes of its neighbours' messages: sum_j W[i][j] x_j."""
    total = np.zeros_like(x[i])
    for j in x:
        if W[i][j] != 0:
            total = total + W[i][j] * x[j]
    return total


def lazy(W):
    return [[0.5 * W[i][j] + 0.5 * (i == j) for j in range(len(W))] for i in range(len(W))]


class LocalMomentum:
    """m <- beta m + g on each node, and the direction m, or g + beta m."""

    def __init__(self, nodes, decay, nesterov):
        self.decay, self.nesterov = decay, nesterov
        self.buffer = dict.fromkeys(nodes, 0.0)

    def __call__(self, i, g):
        self.buffer[i] = self.decay * self.buffer[i] + g
        return g + self.decay * self.buffer[i] if self.nesterov else self.buffer[i]


def dsgd(start, gradient, weights, rate, steps, variant="atc", momentum=0.0, nesterov=False):
    x, path = dict(start), []
    direction = LocalMomentum(x, momentum, nesterov)
    for t in range(steps):
        W = weights(t)
        step = {i: rate(t) * direction(i, gradient(i, x[i])) for i in x}
        if variant == "atc":
            moved = {i: x[i] - step[i] for i in x}
            x = {i: combine(W, moved, i) for i in x}
        else:
            x = {i: combine(W, x, i) - step[i] for i in x}
        path.append(x)
    return path


def local_dsgd(start, gradient, weights, rate, steps, period=2):
    x, path = dict(start), []
    for t in range(steps):
        x = {i: x[i] - rate(t) * gradient(i, x[i]) for i in x}
        if (t + 1) % period == 0:
            x = {i: combine(weights(t), x, i) for i in x}
        path.append(x)
    return path


def extra(start, gradient, weights, rate, steps):
    """x^{t+2} = (I + W) x^{t+1} - (I + W) x^t / 2 - (eta g^{t+1} - eta g^t), x^1 = W x^0 - eta g^0."""
    before, path = dict(start), []
    pull_before = {i: rate(0) * gradient(i, before[i]) for i in before}
    x = {i: combine(weights(0), before, i) - pull_before[i] for i in before}
    path.append(x)
    for t in range(1, steps):
        W = weights(t)
        pull = {i: rate(t) * gradient(i, x[i]) for i in x}
        new = {i: x[i] + combine(W, x, i) - combine(lazy(W), before, i) - (pull[i] - pull_before[i]) for i in x}
        before, pull_before, x = x, pull, new
        path.append(x)
    return path


def _diffusion(start, gradient, weights, rate, steps):
    """x^{t+1} = A (2 x^t - x^{t-1} - eta g^t + eta g^{t-1}), x^1 = A (x^0 - eta g^0)."""
    before, path = dict(start), []
    pull_before = {i: rate(0) * gradient(i, before[i]) for i in before}
    moved = {i: before[i] - pull_before[i] for i in before}
    x = {i: combine(weights(0), moved, i) for i in before}
    path.append(x)
    for t in range(1, steps):
        pull = {i: rate(t) * gradient(i, x[i]) for i in x}
        moved = {i: 2 * x[i] - before[i] - pull[i] + pull_before[i] for i in x}
        before, pull_before = x, pull
        x = {i: combine(weights(t), moved, i) for i in x}
        path.append(x)
    return path


def d2(start, gradient, weights, rate, steps):
    return _diffusion(start, gradient, weights, rate, steps)


def exact_diffusion(start, gradient, weights, rate, steps):
    return _diffusion(start, gradient, lambda t: lazy(weights(t)), rate, steps)


def nids(start, gradient, weights, rate, steps):
    """Primal x and dual d; d is in units of the gradient, by the first step size, should the step size change."""
    x, path = dict(start), []
    scale = rate(0)
    dual = {i: np.zeros_like(x[i]) for i in x}
    for t in range(steps):
        W = weights(t)
        local = {i: x[i] - rate(t) * gradient(i, x[i]) for i in x}
        h = {i: local[i] - scale * dual[i] for i in x}
        dual = {i: dual[i] + (h[i] - combine(W, h, i)) / (2 * scale) for i in x}
        x = {i: local[i] - scale * dual[i] for i in x}
        path.append(x)
    return path


def gradient_tracking(start, gradient, weights, rate, steps, variant="diging"):
    """DIGing's order: x^{t+1} from W_t x^t and s^t, then s^{t+1} = W_t s^t + g^{t+1} - g^t. AugDGM mixes s first."""
    x, path = dict(start), []
    g = {i: gradient(i, x[i]) for i in x}
    s = dict(g)
    for t in range(steps):
        W = weights(t)
        if variant == "aug_dgm":
            s = {i: combine(W, s, i) for i in x}
        moved = {i: x[i] - rate(t) * s[i] for i in x}
        if variant == "diging":
            x = {i: combine(W, x, i) - rate(t) * s[i] for i in x}
        else:
            x = {i: combine(W, moved, i) for i in x}
        if variant != "aug_dgm":
            s = {i: combine(W, s, i) for i in x}
        new = {i: gradient(i, x[i]) for i in x}
        s = {i: s[i] + new[i] - g[i] for i in x}
        g = new
        path.append(x)
    return path


def svl(start, gradient, weights, rate, steps, integral_gain=0.5):
    """Algorithm 1 with delta = 1: local x and w; y = W x is where gradients are taken, and what is reported."""
    y, path = dict(start), []
    x = dict(start)
    w = {i: np.zeros_like(x[i]) for i in x}
    for t in range(steps):
        v = {i: x[i] - y[i] for i in x}
        x = {i: x[i] + integral_gain * w[i] - rate(t) * gradient(i, y[i]) - (1 + integral_gain) * v[i] for i in x}
        w = {i: w[i] - v[i] for i in x}
        y = {i: combine(weights(t), x, i) for i in x}
        path.append(y)
    return path


def quasi_global_momentum(start, gradient, weights, rate, steps, momentum=0.9):
    x, path = dict(start), []
    m = {i: np.zeros_like(x[i]) for i in x}
    for t in range(steps):
        half = {}
        for i in x:
            g = gradient(i, x[i])
            ahead = momentum * m[i] + g  # heavy ball on a copy of the buffer
            half[i] = x[i] - rate(t) * (g + momentum * ahead)
        new = {i: combine(weights(t), half, i) for i in x}
        m = {i: momentum * m[i] + (1 - momentum) * (x[i] - new[i]) / rate(t) for i in x}
        x = new
        path.append(x)
    return path


def stochastic_gradient_push(start, gradient, weights, rate, steps, overlap=False):
    """Every sender j pushes its shares of (x_j, w_j) to those it reaches, itself included; z = x / w."""
    x, path = dict(start), []
    w = dict.fromkeys(x, 1.0)
    z = dict(start)
    for t in range(steps):
        P = weights(t)
        step = {i: rate(t) * gradient(i, z[i]) for i in x}
        sent = {j: (x[j] if overlap else x[j] - step[j], w[j]) for j in x}
        x, w = {i: np.zeros_like(z[i]) for i in z}, dict.fromkeys(z, 0.0)
        for j, (numerator, weight) in sent.items():
            for i in z:
                if P[i][j] != 0:
                    x[i] = x[i] + P[i][j] * numerator
                    w[i] = w[i] + P[i][j] * weight
        if overlap:
            x = {i: x[i] - step[i] for i in x}
        z = {i: x[i] / w[i] for i in x}
        path.append(z)
    return path


def all_reduce_sgd(start, gradient, weights, rate, steps):
    x, path = dict(start), []
    for t in range(steps):
        total = sum(gradient(i, x[i]) for i in x)
        x = {i: x[i] - rate(t) * total / len(x) for i in x}
        path.append(x)
    return path


TWINS = {
    "all_reduce_sgd": all_reduce_sgd,
    "atc_tracking": gradient_tracking,
    "aug_dgm": gradient_tracking,
    "d2": d2,
    "diging": gradient_tracking,
    "dsgd_atc": dsgd,
    "dsgd_cta": dsgd,
    "dsgd_momentum": dsgd,
    "dsgd_nesterov": dsgd,
    "exact_diffusion": exact_diffusion,
    "extra": extra,
    "local_dsgd": local_dsgd,
    "nids": nids,
    "quasi_global_momentum": quasi_global_momentum,
    "sgp": stochastic_gradient_push,
    "sgp_overlap": stochastic_gradient_push,
    "svl": svl,
}
