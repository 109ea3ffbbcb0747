r"""Plain-NumPy twins of dual-oracle and variance-reduced methods: loops over nodes, in the forms that papers print.

See `twins` for what a twin is. What it returns are the answers: primal points, for dual methods; `rate(t)` is 1 / L for
methods that are given by the problem's constants. Eigenvalues are those of the dense I - W.
"""

import jax
import numpy as np
from twins import combine

import adozoo


def spread_of(weights):
    """(smallest positive, largest) eigenvalue of G = I - W, which is fixed."""
    spectrum = np.linalg.eigvalsh(np.eye(len(weights(0))) - np.array(weights(0)))
    return spectrum[1], spectrum[-1]


def gossip(W, x):
    """(I - W) x, node by node."""
    return {i: x[i] - combine(W, x, i) for i in x}


def accelerated_gossip(W, x, rounds, smallest, largest):
    """P_K(G) x by the recursion of Scaman et al., algorithm 3; on a complete graph G / largest."""
    g = smallest / largest
    if g > 1 - 1e-9:
        return {i: moved / largest for i, moved in gossip(W, x).items()}
    c2, c3 = (1 + g) / (1 - g), 2 / ((1 + g) * largest)
    a_before, a = 1, c2
    before, now = dict(x), {i: c2 * (x[i] - c3 * moved) for i, moved in gossip(W, x).items()}
    for _ in range(rounds - 1):
        a_before, a = a, 2 * c2 * a - a_before
        moved = gossip(W, now)
        before, now = now, {i: 2 * c2 * (now[i] - c3 * moved[i]) - before[i] for i in x}
    return {i: x[i] - now[i] / a for i in x}


def ssda(start, gradient, weights, rate, steps, strong_convexity):
    """Scaman et al., algorithm 1."""
    low, high = spread_of(weights)
    x, y, path = dict(start), dict(start), []
    for t in range(steps):
        theta = {i: gradient(i, x[i]) for i in x}
        kappa, g = 1 / (rate(t) * strong_convexity), low / high
        momentum = (np.sqrt(kappa) - np.sqrt(g)) / (np.sqrt(kappa) + np.sqrt(g))
        moved = gossip(weights(t), theta)
        y_new = {i: x[i] - strong_convexity / high * moved[i] for i in x}
        x, y = {i: (1 + momentum) * y_new[i] - momentum * y[i] for i in x}, y_new
        path.append(theta)
    return path


def msda(start, gradient, weights, rate, steps, strong_convexity, rounds):
    """Scaman et al., algorithm 2, with their c_1; for a complete graph it is SSDA."""
    low, high = spread_of(weights)
    root = np.sqrt(low / high)
    c = ((1 - root) / (1 + root)) ** rounds if low < high * (1 - 1e-9) else 0.0
    x, y, path = dict(start), dict(start), []
    for t in range(steps):
        theta = {i: gradient(i, x[i]) for i in x}
        kappa = 1 / (rate(t) * strong_convexity)
        eta = strong_convexity * (1 + c**2) / (1 + c) ** 2
        momentum = ((1 + c) * np.sqrt(kappa) - 1 + c) / ((1 + c) * np.sqrt(kappa) + 1 - c)
        moved = accelerated_gossip(weights(t), theta, rounds, low, high)
        y_new = {i: x[i] - eta * moved[i] for i in x}
        x, y = {i: (1 + momentum) * y_new[i] - momentum * y[i] for i in x}, y_new
        path.append(theta)
    return path


def adom(start, gradient, weights, rate, steps, strong_convexity):
    """With z_f in memory; z_g of a step is formed with the constants of the step before, as params are."""
    low, high = spread_of(weights)
    z, z_f, z_g, path = dict(start), dict(start), dict(start), []
    m = {i: np.zeros_like(z[i]) for i in z}
    for t in range(steps):
        mu, L = strong_convexity, 1 / rate(t)
        alpha, eta = 1 / (2 * L), 2 * low * np.sqrt(mu * L) / (7 * high)
        theta, sigma, tau = mu / high, 1 / high, low / (7 * high) * np.sqrt(mu / L)
        x = {i: gradient(i, z_g[i]) for i in z}
        owed = {i: m[i] - eta * x[i] for i in z}
        delta = {i: sigma * moved for i, moved in gossip(weights(t), owed).items()}
        m = {i: owed[i] - delta[i] for i in z}
        z = {i: z[i] + eta * alpha * (z_g[i] - z[i]) + delta[i] for i in z}
        moved = gossip(weights(t), x)
        z_f = {i: z_g[i] - theta * moved[i] for i in z}
        z_g = {i: tau * z[i] + (1 - tau) * z_f[i] for i in z}
        path.append(x)
    return path


def indices(n, components, period):
    """The registry's samples, as numbers [period, n]."""
    stream = adozoo.samples(jax.random.key(0), n, components, period)
    return np.array([stream(t) for t in range(period)])


def gt_saga(start, gradient, weights, rate, steps, components, period):
    """Each component's gradient is the node's, but a table knows only those that were sampled."""
    drawn = indices(len(start), components, period)
    x, path = dict(start), []
    table = {i: [np.zeros_like(x[i]) for _ in range(components)] for i in x}
    y = {i: np.zeros_like(x[i]) for i in x}
    g_before = dict(y)
    for t in range(steps):
        W, g = weights(t), {}
        for i in x:
            j = drawn[t % period, i]
            fresh = gradient(i, x[i])
            g[i] = fresh - table[i][j] + sum(table[i]) / components
            table[i][j] = fresh
        tracked = {i: y[i] + g[i] - g_before[i] for i in x}
        y, g_before = {i: combine(W, tracked, i) for i in x}, g
        moved = {i: x[i] - rate(t) * y[i] for i in x}
        x = {i: combine(W, moved, i) for i in x}
        path.append(x)
    return path


def dvr(start, gradient, weights, rate, steps, strong_convexity, components, period, probability):
    """Theta is formed anew from the slopes of all f_ij and from what was exchanged; its target uses the last L."""
    drawn, sigma = indices(len(start), components, period), strong_convexity
    coins = adozoo.coins(jax.random.key(4), probability, period)
    heads = [bool(coins(t)) for t in range(period)]
    high = spread_of(weights)[1]
    z = {i: [start[i]] * components for i in start}
    slopes = {i: [-sigma * start[i] / components] * components for i in start}  # as if every F_ij were flat there
    exchanged = {i: np.zeros_like(start[i]) for i in start}
    theta, path = dict(start), []
    for t in range(steps):
        if heads[t % period]:
            moved = gossip(weights(t), theta)
            exchanged = {i: exchanged[i] - moved[i] / high for i in theta}
        else:
            for i in theta:
                j = drawn[t % period, i]
                if t > 0:
                    L_ij = (1 / rate(t - 1) - sigma) / components
                    r = sigma / (sigma + L_ij)
                    z[i][j] = (1 - r) * z[i][j] + r * theta[i]
                slopes[i][j] = (gradient(i, z[i][j]) - sigma * z[i][j]) / components
        theta = {i: exchanged[i] - sum(slopes[i]) / sigma for i in theta}
        path.append(theta)
    return path


TWINS = {"adom": adom, "dvr": dvr, "gt_saga": gt_saga, "msda": msda, "ssda": ssda}
