"""The file is the network: every code of every tensor, for the networks that people put on devices."""

import pytest

from effjax.export import tflite, verify

NAMES = '''plain resnet pre_activation densenet googlenet squeezenet mobilenet_v1 mobilenet_v2 mobilenet_v3 efficientnet
    shufflenet_v1 shufflenet_v2 atrous darts_cell unet convnext vit ds_cnn autoencoder group_norm two_heads
    channels_first'''.split()


@pytest.mark.parametrize('name', NAMES)
def test_every_code_of_every_tensor(name, given, tmp_path):
  ready = given(name)
  network = ready.network()
  tflite(network, tmp_path / 'model.tflite')
  report = verify(tmp_path / 'model.tflite', network, ready.x, traced=200)
  assert report.examples == 200 and report.audit_problems == () and report.float_tensors == 0
  assert report.same, [row for row in report.tensors if min(row.xnnpack.equal, row.builtin.equal) < 1]
