r"""RelaySGD (Vogels et al., NeurIPS 2021), appendix figure 8: a star of 32 workers, whose smallest eigenvalue is 0.

Suboptimality of the mean against steps, for three heterogeneities, without noise. The problem is the paper's own.

Deviations: D2's mixing matrix is moved by 1e-6 towards the identity, as in figure 2, which changes nothing here.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

import adozoo
from experiments import figures
from paper_figures.relaysgd import _curves
from paper_figures.relaysgd._methods import mixing

ZETAS = (0.0, 0.01, 0.1)
LENGTHS = (100, 500, 1000)
CURVES = ("gossip on star", "d2 on star", "gradient_tracking on star", "relay_sgd on star")
PUBLISHED = {
    "d2 on star": ((65, 65, 65), (0.078125, 0.078125, 0.078125)),
    "gradient_tracking on star": ((9, 280, 295), (0.72265625, 0.01781463623, 0.01724243164)),
    "relay_sgd on star": ((8, 8, 8), (0.78125, 0.78125, 0.78125)),
}
PUBLISHED_ERRORS = {
    ("gossip on star", 0.01, 495): 0.008871897972707429,
    ("gossip on star", 0.1, 900): 0.061518614023696905,
    ("d2 on star", 0.0, 100): 4.819784528514719e-05,
    ("gradient_tracking on star", 0.0, 100): 4.090303903591494e-07,
    ("gradient_tracking on star", 0.01, 500): 1.386160509525558e-05,
    ("gradient_tracking on star", 0.1, 1000): 1.0011931839137844e-09,
}


def compute(full: bool) -> xr.Dataset:
    del full  # seconds, in any case
    return _curves.runs(_curves.tuned(CURVES, ZETAS), LENGTHS)


def draw(data: xr.Dataset) -> figures.Figure:
    return _curves.draw(data, (1e-12, 10))


def judge(data: xr.Dataset) -> list[figures.Claim]:
    steps = {curve: data.steps.sel(curve=curve).values for curve in CURVES}
    lowest = float(adozoo.weights.smallest_eigenvalue(mixing("star", _curves.N).matrix))
    gossip = data.error.sel(curve="gossip on star")
    return [
        _curves.tuning_claim(data, PUBLISHED),
        _curves.errors_claim(data, PUBLISHED_ERRORS),
        figures.Claim(
            "the smallest eigenvalue of the star's mixing matrix is 0: D2 is stable",
            abs(lowest) < 1e-12,
            {"smallest eigenvalue": lowest},
            {"smallest eigenvalue": 1.1e-16},
        ),
        figures.Claim(
            "RelaySGD and D2 take the same number of steps whatever the heterogeneity; RelaySGD 8 times fewer",
            bool(all(np.ptp(steps[c]) == 0 for c in ("relay_sgd on star", "d2 on star")))
            and bool((8 * steps["relay_sgd on star"] <= steps["d2 on star"]).all()),
            {"RelaySGD": steps["relay_sgd on star"], "D2": steps["d2 on star"]},
        ),
        figures.Claim(
            "gradient tracking is slowed down by heterogeneity, more than 20 times",
            bool((steps["gradient_tracking on star"][1:] > 20 * steps["gradient_tracking on star"][0]).all()),
            {"steps": steps["gradient_tracking on star"]},
        ),
        figures.Claim(
            "under heterogeneity D-SGD does not come to 1e-6 in the steps shown (given time, it does)",
            bool((gossip.sel(zeta2=list(ZETAS[1:])).min("step") > _curves.TARGET).all()),
            {
                "lowest error": gossip.min("step").values,
                "steps shown": LENGTHS,
                "steps it takes, with its best learning rate": steps["gossip on star"],
            },
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
