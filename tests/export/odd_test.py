"""int4 products: XNNPACK runs those of an even number of inputs, the builtin kernel, which rounds otherwise, the rest."""
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import export
from effjax.reparam import Fact


@pytest.mark.parametrize('inputs', [7, 8, 15, 16, 33])
def test_every_code_of_an_int4_product_is_the_simulations(inputs, tmp_path):
  rng = np.random.default_rng(inputs)
  codes = rng.integers(-7, 8, (inputs, 24)).astype(np.float32)
  scale = rng.uniform(.01, .03, (1, 24)).astype(np.float32)
  facts = {'fc/w': Fact(bits=jnp.float32(4), scale=jnp.asarray(scale))}
  ranges = {'input': (1 / 255, -128, 8), 'fc': (.0117, 3, 8)}
  weights = {'fc': {'w': jnp.asarray(codes * scale)}}
  network = export.finalize(lambda p, x: x @ p['fc']['w'], weights, facts, ranges, jnp.ones((1, inputs)))
  export.tflite(network, tmp_path / 'fc.tflite')
  found = export.verify(tmp_path / 'fc.tflite', network, rng.uniform(0, 1, (200, inputs)).astype(np.float32))
  assert (found.xnnpack.codes_equal, found.audit_problems) == (1., ())
