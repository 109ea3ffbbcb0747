r"""The constants of DADAO and A2CiD2, from the function class and the graph's chi_1 and chi_2.

Numbers give numbers, traced scalars give traced scalars. Rates are per unit of time, in which each node takes one
gradient on average; chi_1 and chi_2 are those of the Laplacian whose entries are the links' rates in that unit.
"""

from typing import Any, NamedTuple, TypeAlias

import scipy.sparse as sp

from adozoo._checks import check_number
from adozoo._constants import check_constants
from adozoo.resistance import LaplacianLike, Sparse, chi, rate_laplacian

Scalar: TypeAlias = Any
"""A number, or a scalar array, traced or not."""


class DadaoParameters(NamedTuple):
    """What DADAO's flow (nu to theta) and jumps (gamma to beta_tilde) multiply by.

    Attributes:
      nu: share of the strong convexity that the saddle point keeps with the consensus variables, 0 < nu < mu.
      eta, eta_tilde: rates at which x and x~ mix.
      alpha, alpha_tilde: rates at which y, z follow y~, z~, and z~ follows z.
      theta: rate at which y~ follows -(y + z + nu x~).
      gamma, gamma_tilde: gradient steps of x and x~.
      delta, delta_tilde: gradient step of y~ is their sum.
      beta, beta_tilde: steps of z and z~ along a link.
    """

    nu: Scalar
    eta: Scalar
    eta_tilde: Scalar
    alpha: Scalar
    alpha_tilde: Scalar
    theta: Scalar
    gamma: Scalar
    gamma_tilde: Scalar
    delta: Scalar
    delta_tilde: Scalar
    beta: Scalar
    beta_tilde: Scalar


class AcidParameters(NamedTuple):
    """What A2CiD2 multiplies by.

    Attributes:
      eta: rate at which x and x~ mix between events.
      alpha, alpha_tilde: steps of x and x~ along a link; alpha = 1/2 averages a pair.
    """

    eta: Scalar
    alpha: Scalar
    alpha_tilde: Scalar


def dadao_parameters(strong_convexity: Scalar, smoothness: Scalar, chi_1: Scalar) -> DadaoParameters:
    r"""The constants under which DADAO converges at a rate that the graph does not enter.

    With $\nu = \mu / 2$: $\eta = \tilde\eta = \tilde\alpha = \frac18 \sqrt{\nu / L}$, $\alpha = \delta = \frac14
    \sqrt{\nu / L}$, $\theta = \frac12 \sqrt{L / \nu}$, $\gamma = \frac{1}{4 L}$, $\tilde\gamma = \frac{1}{4
    \sqrt{\nu L}}$, $\tilde\delta = 1$, $\beta = \frac12$, $\tilde\beta = 2 \chi_1 \sqrt{L / \nu}$. The links have to
    fire often enough for 2 chi_1 chi_2 <= 1; chi_2 enters nowhere else.

    Args:
      strong_convexity: mu > 0, of every f_i.
      smoothness: L >= mu, of every f_i.
      chi_1: 1 / lambda_2 of the Laplacian of rates, the largest one if the graph varies.

    Returns:
      `DadaoParameters`.

    Raises:
      ValueError: for constants that are not positive, or L < mu.

    Example:
      >>> parameters = theory.dadao_parameters(2.0, 100.0, chi_1=0.5)
      >>> parameters.nu, parameters.alpha, parameters.beta_tilde
      (1.0, 0.025, 10.0)

    References:
      Nabli, Oyallon, "DADAO: decoupled accelerated decentralized asynchronous optimization", ICML 2023.
    """
    check_constants("dadao_parameters", strong_convexity, smoothness)
    check_number("dadao_parameters", "chi_1", chi_1)
    nu = strong_convexity / 2
    root = (nu / smoothness) ** 0.5
    return DadaoParameters(
        nu=nu,
        eta=root / 8,
        eta_tilde=root / 8,
        alpha=root / 4,
        alpha_tilde=root / 8,
        theta=1 / (2 * root),
        gamma=1 / (4 * smoothness),
        gamma_tilde=1 / (4 * (nu * smoothness) ** 0.5),
        delta=root / 4,
        delta_tilde=1.0,
        beta=0.5,
        beta_tilde=2 * chi_1 / root,
    )


def dadao_rates(laplacian: LaplacianLike) -> Sparse:
    r"""The slowest rates, in proportion to the given ones, with which DADAO's theory works: 2 chi_1 chi_2 = 1.

    Args:
      laplacian: a graph or Laplacian whose rates are right up to a factor; what `adozoo.resistance.rate_laplacian`
        accepts.

    Returns:
      [n, n] csr_array, the Laplacian of the rates: exchanges over each link per unit of time.

    Raises:
      ValueError: what `rate_laplacian` refuses, or a single node.

    Example:
      >>> rates = theory.dadao_rates(adozoo.graphs.star(8))
      >>> chi_1, chi_2 = adozoo.resistance.chi(rates)
      >>> round(2 * chi_1 * chi_2, 9), round(float(rates.trace()) / 2, 9)
      (1.0, 7.0)
    """
    matrix = rate_laplacian(laplacian)
    if matrix.shape[0] < 2:
        raise ValueError("dadao_rates: laplacian must have at least two nodes, got 1: one has no one to talk to.")
    chi_1, chi_2 = chi(matrix)
    return sp.csr_array(matrix * (2 * chi_1 * chi_2) ** 0.5)


def acid_parameters(chi_1: Scalar, chi_2: Scalar, accelerated: bool = True) -> AcidParameters:
    r"""The constants of A2CiD2 for a graph, or those of plain pairwise averaging.

    $\eta = \frac{1}{2 \sqrt{\chi_1 \chi_2}}$, $\alpha = \frac12$, $\tilde\alpha = \frac12 \sqrt{\chi_1 / \chi_2}$; the
    baseline has $\eta = 0$ and $\tilde\alpha = \alpha$, with which x~ = x at all times.

    Args:
      chi_1: 1 / lambda_2 of the Laplacian of rates.
      chi_2: half the largest effective resistance of a link; never above chi_1.
      accelerated: False for the baseline.

    Returns:
      `AcidParameters`.

    Raises:
      ValueError: for chi_1 or chi_2 that are not positive.

    Example:
      >>> ring = adozoo.resistance.chi(
      ...     adozoo.resistance.normalize_rates(adozoo.graphs.ring(16), "node_rate")
      ... )
      >>> [round(value, 5) for value in theory.acid_parameters(*ring)]
      [0.14247, 0.5, 1.87169]

    References:
      Nabli, Belilovsky, Oyallon, "A2CiD2: accelerating asynchronous communication in decentralized deep learning",
      NeurIPS 2023.
    """
    for name, value in (("chi_1", chi_1), ("chi_2", chi_2)):
        check_number("acid_parameters", name, value)
    if not accelerated:
        return AcidParameters(eta=0.0, alpha=0.5, alpha_tilde=0.5)
    return AcidParameters(eta=0.5 / (chi_1 * chi_2) ** 0.5, alpha=0.5, alpha_tilde=0.5 * (chi_1 / chi_2) ** 0.5)
