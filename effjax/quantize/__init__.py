"""Fewer bits of weights, activations, gradients and optimizer states: `effjax quantizers` lists them.

Three lines serve any tree of arrays:

>>> import jax
>>> from effjax.reparam import at
>>> params = {'dense': {'kernel': jax.numpy.array([[.7, -.2], [.1, .35]]), 'bias': jax.numpy.zeros(2)}}
>>> rule = at('.*kernel', lsq(2))                   # on the leaves that match
>>> slots = rule.init(jax.random.key(0), params)    # train slots.theta and slots.phi
>>> rule.apply(*slots, None)['dense']['kernel']     # as deployed
Array([[ 0.7       , -0.29431376],
       [ 0.        ,  0.29431376]], dtype=float32)
"""
from effjax.quantize.activations import activations, quantizers
from effjax.quantize.adaround import adaround, reconstruct, rounding_penalty
from effjax.quantize.admm import admm, admm_penalty
from effjax.quantize.allocate_bits import allocate_bits, rounding_errors
from effjax.quantize.apot import apot, apot_levels
from effjax.quantize.aware import RANGES, WEIGHTS, Aware, Deployed, aware, check_kernels, deployed
from effjax.quantize.bayesian_bits import bayesian_bits
from effjax.quantize.bias_correction import bias_correction
from effjax.quantize.binary_connect import binary_connect, clip_weights
from effjax.quantize.blockwise import blockwise
from effjax.quantize.bnn import bit_planes, packed_signs, sign_activation, xnor_dot
from effjax.quantize.calibrate import calibrate, update_ranges
from effjax.quantize.channel_bits import channel_bits
from effjax.quantize.clip_q import clip_q
from effjax.quantize.coded import Sizes, load_coded, save_coded, total_bytes
from effjax.quantize.coordinate_codes import coordinate_codes, hashing
from effjax.quantize.data_types import decode_blocks, dynamic_levels, encode_blocks, linear_levels, normal_levels
from effjax.quantize.dorefa import dorefa, dorefa_activation, dorefa_gradient
from effjax.quantize.equalize import equalize
from effjax.quantize.fixed_point import fixed_point, fixed_point_weights, to_fixed_point
from effjax.quantize.fractional_bits import fractional_bits
from effjax.quantize.gptq import gptq
from effjax.quantize.hessian_traces import hessian_traces
from effjax.quantize.huffman import huffman, huffman_decode, huffman_encode
from effjax.quantize.lsq import codes, lsq
from effjax.quantize.lsq_plus import lsq_plus
from effjax.quantize.mixed_bits import mixed_bits
from effjax.quantize.observed import min_max, mse, percentile
from effjax.quantize.pact import pact, pact_penalty
from effjax.quantize.quantize_gradients import quantize_gradients
from effjax.quantize.quantize_state import quantize_state
from effjax.quantize.shared import k_means, shared, sharing_rate
from effjax.quantize.sparse_index import dense_symbols, sparse_index
from effjax.quantize.ternary import ternary
from effjax.quantize.trained_ternary import trained_ternary
from effjax.quantize.two_step import sparse_codes, two_step
from effjax.quantize.uniform import uniform
from effjax.quantize.xnor import xnor

__all__ = [
    # a whole network
    'RANGES', 'WEIGHTS', 'Aware', 'Deployed', 'activations', 'aware', 'calibrate', 'check_kernels', 'deployed',
    'quantizers', 'update_ranges',
    # weights on integers
    'adaround', 'admm', 'admm_penalty', 'bayesian_bits', 'binary_connect', 'channel_bits', 'clip_weights', 'codes',
    'dorefa', 'fixed_point', 'fractional_bits', 'lsq', 'mixed_bits', 'reconstruct', 'rounding_penalty', 'ternary',
    'uniform', 'xnor',
    # weights on other levels
    'apot', 'apot_levels', 'blockwise', 'clip_q', 'k_means', 'shared', 'sharing_rate', 'trained_ternary',
    # activations
    'dorefa_activation', 'lsq_plus', 'min_max', 'mse', 'pact', 'pact_penalty', 'percentile', 'sign_activation',
    'sparse_codes',
    # after training
    'allocate_bits', 'bias_correction', 'coordinate_codes', 'equalize', 'gptq', 'hashing', 'hessian_traces',
    'rounding_errors', 'two_step',
    # gradients, optimizer states, parameters after an update
    'dorefa_gradient', 'fixed_point_weights', 'quantize_gradients', 'quantize_state', 'to_fixed_point',
    # storage and bits
    'Sizes', 'bit_planes', 'decode_blocks', 'dense_symbols', 'dynamic_levels', 'encode_blocks', 'huffman',
    'huffman_decode', 'huffman_encode', 'linear_levels', 'load_coded', 'normal_levels', 'packed_signs', 'save_coded',
    'sparse_index', 'total_bytes', 'xnor_dot',
]
