"""adozoo: decentralised and communication-efficient optimisation methods as optax-style transformations.

A method = what a node does alone x how nodes talk x over what. Params, grads and states are stacked pytrees with a
leading axis of n nodes:

    mix = adozoo.mixing(adozoo.graphs.ring(16))
    tx = optax.chain(adozoo.per_node(optax.adam(1e-3)), adozoo.adapt_then_combine(mix))

See `adozoo.zoo.entries()` for all named methods and `adozoo.simulate` for running them.
"""

from adozoo import channel, compression, events, graphs, nodes, placement, problems, resistance, schedules, weights, zoo
from adozoo.accelerated.acc_gt import acc_gt
from adozoo.accelerated.adom import adom
from adozoo.accelerated.adom_plus import adom_plus
from adozoo.accelerated.apapc import apapc, opapc
from adozoo.accelerated.dvr import dvr
from adozoo.accelerated.gt_saga import gt_saga
from adozoo.accelerated.ssda import msda, ssda
from adozoo.asynchronous._parameters import acid_parameters, dadao_parameters, dadao_rates
from adozoo.asynchronous.acid import accelerated_gossip, acid
from adozoo.asynchronous.ad_psgd import ad_psgd
from adozoo.asynchronous.continuized import continuized_dual, continuized_nesterov
from adozoo.asynchronous.dadao import dadao
from adozoo.averaging.all_reduce_sgd import all_reduce_sgd
from adozoo.averaging.compressed_sgd import compressed_sgd, error_feedback
from adozoo.averaging.power_sgd import post_momentum, power_sgd
from adozoo.averaging.signum import signum
from adozoo.exchange import Exchange, exchange
from adozoo.gossip.choco_sgd import choco_average, choco_sgd
from adozoo.gossip.deep_squeeze import deep_squeeze
from adozoo.gossip.difference_compression import difference_compression
from adozoo.gossip.dsgd import dsgd
from adozoo.gossip.exact_diffusion import d2, exact_diffusion
from adozoo.gossip.extra import extra
from adozoo.gossip.gradient_tracking import gradient_tracking
from adozoo.gossip.local_dsgd import local_dsgd
from adozoo.gossip.moniqua import moniqua
from adozoo.gossip.nids import nids
from adozoo.gossip.power_gossip import power_gossip, power_gossip_average
from adozoo.gossip.quasi_global_momentum import quasi_global_momentum
from adozoo.gossip.relay_sgd import relay_mix, relay_sgd, relay_sgd_grad
from adozoo.gossip.stochastic_gradient_push import stochastic_gradient_push
from adozoo.gossip.svl import svl
from adozoo.mixing import Mixing, exact_mean, mixing, power
from adozoo.nodes import consensus_distance, disagreement, eval_params, node_count, node_mean, per_node, replicate
from adozoo.parts import (
    adapt_then_combine,
    average_gradients,
    combine_then_adapt,
    descent,
    momentum,
    track_gradients,
)
from adozoo.polynomials import chebyshev, fast_mix, multi_consensus
from adozoo.relaxation import relaxed
from adozoo.relay import relay_average, relay_updates
from adozoo.samples import coins, recorded_coins, recorded_samples, samples
from adozoo.schedules import (
    cycle,
    gossip_every,
    identity,
    one_peer_exponential,
    random_edge,
    random_matching,
    random_subgraph,
)
from adozoo.simulate import simulate, simulate_events

__version__ = "0.1.0"
