"""Networks by name."""
import jax
import pytest

from effjax import models
from effjax.errors import EffjaxError


def test_every_name_makes_a_network_that_is_called_alike():
  for name, variant in models.NETWORKS.items():
    net = models.create(name, num_classes=7)
    assert net.num_classes == 7 and name == name.lower()
    assert min((variant.size, variant.size) if isinstance(variant.size, int) else variant.size) >= net.stride


def test_unknown_names_and_options():
  with pytest.raises(EffjaxError, match=r"models: no network is called 'mobilenetv2': nearest are \['mobilenet_v2'"):
    models.create('mobilenetv2')
  with pytest.raises(EffjaxError, match=r"models: 'mobilenet_v2' does not take these options \(.*'depth'\): give fields"):
    models.create('mobilenet_v2', depth=3)


@pytest.mark.slow
@pytest.mark.parametrize('name', models.NETWORKS)
def test_intermediates_have_names_of_their_own(name):
  """Flax refuses one that is called like a layer, when they are asked for."""
  net = models.create(name)
  variables, images = models.shapes(net, models.NETWORKS[name].size)
  apply = lambda variables, x: net.apply(variables, x, False, mutable=['intermediates'])
  _, found = jax.eval_shape(apply, variables, images)
  assert found['intermediates']
