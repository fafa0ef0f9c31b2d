"""SNet against counts of a separate counter, ThunderNet against a hand count and its parts, which are what they say."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import models
from effjax.layers import ps_roi_align
from effjax.models import detection
from effjax.models.thundernet import VARIANTS, RegionHead, ThunderNet

COUNTS = {'snet49': (875_548, 51_205_832), 'snet146': (1_572_748, 161_137_848), 'snet535': (4_535_144, 535_354_640)}
SMALL = ThunderNet(2, features=(16, 24, 32), depths=(1, 1, 1), stem=8, head=0, rpn=16, squeeze=1, hidden=16, scales=(16, 32),
                   ratios=(.5, 1., 2.), before=30, after=6)


@pytest.mark.parametrize('name', COUNTS)
def test_counts(name):
  assert models.count(VARIANTS[name].make(), 224) == COUNTS[name]


def test_counts_of_thundernet():
  """Of 320 pixels: what follows SNet49, and the products of bilinear interpolation, which the paper does not count."""
  c4, c5, cells, regions, f = 120, 512, 20 * 20, 200, 245
  parameters = (c4 + 2 * c5 + 3) * f + (25 + 2) * f + (f + 2) * 256 + 257 * 125 + (256 + 2) * f + (f + 1) * 1024 + 1025 * (81 + 4)
  macs = cells * c4 * f + (100 + 1) * c5 * f + cells * (25 * f + f * 256 + 256 * 125 + 256 * f)
  macs += regions * (f * 1024 + 1024 * 85)
  interpolated = regions * f * (20 * 20 + 20)
  backbone, total = (models.count(models.create(name), 320) for name in ('snet49', 'thundernet_snet49'))
  assert total == (backbone[0] - 513 * 1000 + parameters, backbone[1] - 512 * 1000 + macs + interpolated)
  assert round((total[1] - interpolated) / 1e6) == 261  # the paper: 262


@pytest.fixture(scope='module')
def run():
  x = jax.random.normal(jax.random.key(1), (2, 64, 96, 3))
  found, variables = jax.jit(lambda: SMALL.init_with_output(
    jax.random.key(0), x, False, mutable=['params', 'batch_stats', 'intermediates']))()
  return x, found, variables


def test_shapes(run):
  _, found, _ = run
  cells, each = 4 * 6, 6
  assert found.anchors.shape == (cells * each, 4) and found.objectness.shape == (2, cells * each)
  assert found.regions.shape == (2, 6, 4) and found.logits.shape == (2, 6, 3) and found.deltas.shape == (2, 6, 4)


def test_the_second_stage_is_that_of_its_parts(run):
  _, found, variables = run
  features = variables['intermediates']['attention']
  align = jax.jit(lambda x, boxes: ps_roi_align(x, boxes, scale=1 / 16))
  aligned = jnp.stack([align(x, boxes) for x, boxes in zip(features, found.regions)])
  logits, deltas = jax.jit(RegionHead(3, 16).apply)({'params': variables['params']['regions']}, aligned)
  np.testing.assert_allclose(logits, found.logits, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(deltas, found.deltas, rtol=1e-4, atol=1e-5)


def test_regions_are_the_proposals_of_the_first_stage(run):
  _, found, _ = run
  propose = jax.jit(lambda scores, offsets: detection.proposals(scores, offsets, found.anchors, (64, 96), before=30, after=6))
  for i in range(2):
    regions, valid = propose(found.objectness[i], found.offsets[i])
    np.testing.assert_allclose(regions, found.regions[i], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(valid, found.valid[i])


def test_attention_of_zero_weights_halves(run):
  x, _, variables = run
  params = variables['params']
  gate = jax.tree.map(jnp.zeros_like, params['gate']['conv'])
  params = {**params, 'gate': {**params['gate'], 'conv': gate}}
  marks = jax.jit(lambda params: SMALL.copy(after=0).apply(
    {'params': params, 'batch_stats': variables['batch_stats']}, x, False, mutable=['intermediates'])[1])
  found = marks({name: part for name, part in params.items() if name != 'regions'})['intermediates']
  np.testing.assert_allclose(found['attention'], found['context'] / 2, rtol=1e-6)


def test_context_of_an_odd_number_of_cells():
  shapes = jax.eval_shape(lambda: SMALL.init_with_output(jax.random.key(0), jnp.ones((1, 80, 48, 3)), False))[0]
  assert shapes.anchors.shape == (5 * 3 * 6, 4)


@pytest.mark.slow
def test_one_step_learns(learns):
  """By the losses of both stages; every parameter has a gradient."""
  objects, valid = jnp.array([[[4., 6., 40., 44.]]]), jnp.ones((8, 1), bool)

  def loss(found):
    boxes = jnp.broadcast_to(objects, (8, 1, 4))
    parts = detection.two_stage_losses(jax.random.key(0), found, boxes, jnp.ones((8, 1), jnp.int32), valid)
    outputs = jnp.mean(found.deltas**2) + jnp.mean(found.offsets**2)  # where no region is positive
    return sum(parts) + outputs
  learns(SMALL, 64, loss)


@pytest.mark.slow
def test_from_gates_to_a_file(to_file):
  to_file(SMALL.copy(after=0), 32)
