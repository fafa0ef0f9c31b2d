"""Fewer bits: weights (`lsq`, `mixed_bits`) and activations (`lsq_plus`, `activations`)."""
from effjax.quantize.activations import activations, quantizers
from effjax.quantize.aware import RANGES, WEIGHTS, Aware, Deployed, aware, check_kernels, deployed
from effjax.quantize.lsq import codes, lsq
from effjax.quantize.lsq_plus import lsq_plus
from effjax.quantize.mixed_bits import mixed_bits
from effjax.quantize.uniform import uniform

__all__ = [
    'RANGES', 'WEIGHTS', 'Aware', 'Deployed',
    'activations', 'aware', 'check_kernels', 'deployed', 'quantizers',
    'codes', 'lsq', 'lsq_plus', 'mixed_bits',
    'uniform',
]
