"""Squeeze-excite by its definition."""
import flax.linen as nn
import jax
import numpy as np

from effjax.layers import SqueezeExcite


def test_a_gate_per_channel():
  x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
  for gate, exact in ((nn.sigmoid, lambda s: 1 / (1 + np.exp(-s))), (nn.hard_sigmoid, lambda s: np.clip(s / 6 + .5, 0, 1))):
    y, variables = SqueezeExcite(3, gate=gate).init_with_output(jax.random.key(1), x)
    w = jax.tree.map(np.float64, variables['params'])
    s = np.maximum(np.float64(x).mean((1, 2)) @ w['reduce']['conv']['kernel'][0, 0] + w['reduce']['conv']['bias'], 0)
    s = exact(s @ w['expand']['conv']['kernel'][0, 0] + w['expand']['conv']['bias'])
    np.testing.assert_allclose(y, x * s[:, None, None], rtol=1e-5, atol=1e-6)
    assert w['reduce']['conv']['kernel'].shape[-1] == 3
