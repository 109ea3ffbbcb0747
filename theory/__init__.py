"""theory: what is known of a method, set beside what the implementation does.

The exact linear rate and limit of an implemented method (`exact_rate`, `limit`), its stationary error under gradient
noise (`stationary_error`) and its mean-square rate under random mixings (`mean_square_rate`), its certified worst case
(`worst_case_rate`, `tune`), what is proved of it (`bounds`), and all of that beside a measured run (`compare`). Graphs
in symbols (`graph_symbols`, `chi`), spectra and effective neighbours of a mixing (`spectral_gap`,
`effective_neighbors`), the toy problem whose rate is known exactly (`isotropic_rate`), theorem 6 of Beyond Spectral Gap
(`theorem6`), RelaySGD's delays, constants and exact rate (`relay_constants`, `relay_rate`), and the fit of a measured
rate with its uncertainty (`fit_rate`). From a shell: `python -m theory --help`.
"""

from adozoo.asynchronous._parameters import (
    AcidParameters,
    DadaoParameters,
    acid_parameters,
    dadao_parameters,
    dadao_rates,
)
from adozoo.resistance import (
    Chi,
    algebraic_connectivity,
    chi,
    edge_resistances,
    effective_resistance,
    kirchhoff_index,
    normalize_rates,
    rate_laplacian,
)
from theory import (
    asymptotics,
    asynchronous,
    asynchronous_costs,
    asynchronous_proofs,
    bounds,
    certificate,
    claims,
    dimension,
    extraction,
    generator,
    isotropic,
    linear,
    lmi,
    low_rank_events,
    lyapunov,
    matrices,
    matrix_free,
    measure,
    mixing_times,
    modal,
    neighbor_formulas,
    neighbors,
    observation,
    optimal_weights,
    outcomes,
    rational,
    relay,
    relay_rates,
    second_moment,
    spectra,
    stationary,
    step_map,
    structured,
    subspaces,
    tuning,
    verdict,
)
from theory.asymptotics import graph_asymptotics, graph_table
from theory.asynchronous import (
    AcidStationary,
    LinearEvents,
    acid_events,
    acid_rate,
    acid_stationary,
    dadao_events,
    dadao_rate,
)
from theory.asynchronous_costs import (
    Communications,
    Complexity,
    communication_asymptotics,
    communication_orders,
    communication_symbols,
    communication_table,
    communications_per_gradient_round,
    complexities,
    complexity_table,
)
from theory.asynchronous_proofs import Lemma, ProofStep, consensus_lemma
from theory.certificate import Certificate, Proof, certify, worst_case_rate
from theory.compare import compare, compare_all
from theory.dimension import SpectralDimension, spectral_dimension
from theory.extraction import StateSpace, state_space
from theory.generator import Event, GeneratorRate, generator_rate, generator_stationary
from theory.graph_symbols import GraphSymbols, graph_symbols
from theory.isotropic import (
    best_learning_rate,
    expected_square_norm,
    isotropic_rate,
    isotropic_transition_matrix,
    largest_learning_rate,
    secular_rate,
    steps_to,
)
from theory.linear import Linearization, Memory, exact_rate, limit, linearize, memory
from theory.low_rank_events import low_rank_rate, low_rank_stationary
from theory.lyapunov import averaging_matrix, beta, beta_lower_bound, fixed_point, one_step, theorem6
from theory.matrix_free import MatrixFreeRate, matrix_free_rate
from theory.mean_square import MeanSquareRate, mean_square_rate
from theory.measure import FittedRate, fit_modes, fit_rate
from theory.mixing_times import MixingTimeBounds, mixing_time, mixing_time_bounds, relaxation_time
from theory.neighbor_formulas import (
    effective_neighbors_infinite,
    local_steps_neighbors,
    one_peer_exponential_neighbors,
    spectral_dimension_lower_bound,
    spectral_gap_lower_bound,
)
from theory.neighbors import (
    decay_for_neighbors,
    effective_neighbors,
    effective_neighbors_from_eigenvalues,
    random_walk_covariance,
    variance_profile,
)
from theory.optimal_weights import WeightModuli, symbolic_weight_moduli, weight_moduli
from theory.outcomes import Outcomes, enumerate_outcomes
from theory.relay import (
    RelayConstants,
    delay_matrix,
    impulse_response,
    learning_rate_correction,
    mean_delay,
    mean_delay_formula,
    relay_constants,
    relay_matrix,
    relay_perron,
)
from theory.relay_rates import relay_grad_bias, relay_rate, relay_small_step_rate
from theory.second_moment import second_moment_rate, second_moment_stationary
from theory.spectra import eigenvalues, families, laplacian_spectrum, spectral_gap, spectrum, symbolic_gap
from theory.stationary import StationaryError, stationary_error
from theory.structured import structured_rate
from theory.tuning import Tuned, tune
from theory.verdict import Claim, Verdict
