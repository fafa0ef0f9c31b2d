"""A convolution alone is ConvBN's."""
import jax
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers.conv import Conv
from effjax.layers.conv_bn import ConvBN

X = jax.random.normal(jax.random.key(0), (2, 9, 8, 6))


@pytest.mark.parametrize('options', [{}, {'strides': 2, 'padding': 'symmetric'}, {'groups': 3}, {'dilation': 2},
                                     {'kernel': (1, 3)}])
def test_what_convbn_convolves(options):
  net = ConvBN(9, activation=None, epsilon=0., **options)
  variables = net.init(jax.random.key(1), X, False)
  params = {'conv': variables['params']['conv']}
  assert jax.tree.structure(Conv(9, **options).init(jax.random.key(1), X)['params']) == jax.tree.structure(params)
  np.testing.assert_allclose(Conv(9, **options).apply({'params': params}, X), net.apply(variables, X, False), rtol=1e-6)


def test_groups_that_do_not_divide():
  with pytest.raises(EffjaxError, match=r'Conv \(top\): 4 groups do not divide 6 input and 8 output channels'):
    Conv(8, groups=4).init(jax.random.key(0), X)
