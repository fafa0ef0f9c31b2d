"""What other libraries call the layers of our networks, and the options with which ours are theirs.

NAMES: by the name of a network or of its class, then by source; how rows read is said in import_layers.py.
"""
from effjax.models.import_layers import Names

TORCH = {'padding': 'symmetric', 'epsilon': 1e-5}
KERAS = {'padding': 'SAME', 'epsilon': 1e-3}
KERAS_RESNET = {'padding': 'symmetric', 'epsilon': 1.001e-5}

# timm's names of the blocks of MobileNets and EfficientNets; a block that does not expand calls its projection conv_pw
TIMM_BLOCKS = (
    ('stem', 'conv_stem', 'bn1'),
    ('block1/depthwise', 'blocks.0.0.conv_dw', 'blocks.0.0.bn1'),
    ('block1/project', 'blocks.0.0.conv_pw', 'blocks.0.0.bn2'),
    ('block*/squeeze_excite/*', 'blocks.{s0}.{b0}.se.conv_{last}'),
    ('block*/expand', 'blocks.{s0}.{b0}.conv_pw', 'blocks.{s0}.{b0}.bn1'),
    ('block*/depthwise', 'blocks.{s0}.{b0}.conv_dw', 'blocks.{s0}.{b0}.bn2'),
    ('block*/project', 'blocks.{s0}.{b0}.conv_pwl', 'blocks.{s0}.{b0}.bn3'),
    ('head', 'conv_head', 'bn2'),
    ('classifier', 'classifier'))

MOBILENET_V2 = {
    'torchvision': Names(TORCH, (
        ('stem', 'features.0.0', 'features.0.1'),
        ('block*/project', 'features.{n}.conv.{i}', 'features.{n}.conv.{j}'),
        ('block*/*', 'features.{n}.conv.{i}.0', 'features.{n}.conv.{i}.1'),
        ('head', 'features.18.0', 'features.18.1'),
        ('classifier', 'classifier.1'))),
    'timm': Names(TORCH, TIMM_BLOCKS),
    'keras': Names(KERAS, (
        ('stem', 'Conv1', 'bn_Conv1'),
        ('block1/*', 'expanded_conv_{last}', 'expanded_conv_{last}_BN'),
        ('block*/*', 'block_{n0}_{last}', 'block_{n0}_{last}_BN'),
        ('head', 'Conv_1', 'Conv_1_bn'),
        ('classifier', 'predictions')))}

RESNET_TORCH = Names(TORCH, (
    ('stem', 'conv1', 'bn1'),
    ('block*/reduce', 'layer{s}.{b0}.conv1', 'layer{s}.{b0}.bn1'),
    ('block*/spatial', 'layer{s}.{b0}.conv2', 'layer{s}.{b0}.bn2'),
    ('block*/expand', 'layer{s}.{b0}.conv3', 'layer{s}.{b0}.bn3'),
    ('block*/conv1', 'layer{s}.{b0}.conv1', 'layer{s}.{b0}.bn1'),
    ('block*/conv2', 'layer{s}.{b0}.conv2', 'layer{s}.{b0}.bn2'),
    ('block*/shortcut', 'layer{s}.{b0}.downsample.0', 'layer{s}.{b0}.downsample.1'),
    ('classifier', 'fc')))
RESNET = {
    'torchvision': RESNET_TORCH,
    'timm': RESNET_TORCH,
    'keras': Names({**KERAS_RESNET, 'reduce_strides': True}, (
        ('stem', 'conv1_conv', 'conv1_bn'),
        ('block*/reduce', 'conv{s1}_block{b}_1_conv', 'conv{s1}_block{b}_1_bn'),
        ('block*/spatial', 'conv{s1}_block{b}_2_conv', 'conv{s1}_block{b}_2_bn'),
        ('block*/expand', 'conv{s1}_block{b}_3_conv', 'conv{s1}_block{b}_3_bn'),
        ('block*/shortcut', 'conv{s1}_block{b}_0_conv', 'conv{s1}_block{b}_0_bn'),
        ('classifier', 'predictions')))}

MOBILENET_V1 = {
    'timm': Names(TORCH, (
        ('stem', 'conv_stem', 'bn1'),
        ('block*/depthwise', 'blocks.{s0}.{b0}.conv_dw', 'blocks.{s0}.{b0}.bn1'),
        ('block*/pointwise', 'blocks.{s0}.{b0}.conv_pw', 'blocks.{s0}.{b0}.bn2'),
        ('classifier', 'classifier'))),
    'keras': Names(KERAS, (
        ('stem', 'conv1', 'conv1_bn'),
        ('block*/depthwise', 'conv_dw_{n}', 'conv_dw_{n}_bn'),
        ('block*/pointwise', 'conv_pw_{n}', 'conv_pw_{n}_bn'),
        ('classifier', 'conv_preds')))}

EFFICIENTNET = {
    'torchvision': Names(TORCH, (
        ('stem', 'features.0.0', 'features.0.1'),
        ('block*/squeeze_excite/reduce', 'features.{s}.{b0}.block.{i}.fc1'),
        ('block*/squeeze_excite/expand', 'features.{s}.{b0}.block.{i}.fc2'),
        ('block*/*', 'features.{s}.{b0}.block.{i}.0', 'features.{s}.{b0}.block.{i}.1'),
        ('head', 'features.8.0', 'features.8.1'),
        ('classifier', 'classifier.1'))),
    'timm': Names(TORCH, TIMM_BLOCKS),
    'keras': Names(KERAS, (
        ('stem', 'stem_conv', 'stem_bn'),
        ('block*/squeeze_excite/*', 'block{s}{letter}_se_{last}'),
        ('block*/depthwise', 'block{s}{letter}_dwconv', 'block{s}{letter}_bn'),
        ('block*/*', 'block{s}{letter}_{last}_conv', 'block{s}{letter}_{last}_bn'),
        ('head', 'top_conv', 'top_bn'),
        ('classifier', 'predictions')))}


def _mobilenet_v3(blocks, stages):
  torchvision = (
      ('stem', 'features.0.0', 'features.0.1'),
      ('block*/squeeze_excite/reduce', 'features.{n}.block.{i}.fc1'),
      ('block*/squeeze_excite/expand', 'features.{n}.block.{i}.fc2'),
      ('block*/*', 'features.{n}.block.{i}.0', 'features.{n}.block.{i}.1'),
      ('head', f'features.{blocks + 1}.0', f'features.{blocks + 1}.1'),
      ('hidden', 'classifier.0'),
      ('classifier', 'classifier.3'))
  timm = (('head', f'blocks.{stages}.0.conv', f'blocks.{stages}.0.bn1'), ('hidden', 'conv_head'), *TIMM_BLOCKS)
  keras = (
      ('stem', 'conv', 'conv_bn'),
      ('block1/squeeze_excite/reduce', 'expanded_conv_squeeze_excite_conv'),
      ('block1/squeeze_excite/expand', 'expanded_conv_squeeze_excite_conv_1'),
      ('block*/squeeze_excite/reduce', 'expanded_conv_{n0}_squeeze_excite_conv'),
      ('block*/squeeze_excite/expand', 'expanded_conv_{n0}_squeeze_excite_conv_1'),
      ('block1/*', 'expanded_conv_{last}', 'expanded_conv_{last}_bn'),
      ('block*/*', 'expanded_conv_{n0}_{last}', 'expanded_conv_{n0}_{last}_bn'),
      ('head', 'conv_1', 'conv_1_bn'),
      ('hidden', 'conv_2'),
      ('classifier', 'logits'))
  return {'torchvision': Names({**TORCH, 'epsilon': 1e-3}, torchvision), 'timm': Names(TORCH, timm),
          'keras': Names(KERAS, keras)}


# Convolutions, ReLUs, and a pool behind each stage, in one list; with BatchNorm also that.
_CONVS, _CONVS_BN = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
_VGG16 = tuple((f'conv{n}', f'features.{at}') for n, at in enumerate(_CONVS, 1))
_VGG16_BN = tuple((f'conv{n}', f'features.{at}', f'features.{at + 1}') for n, at in enumerate(_CONVS_BN, 1))
_VGG_TORCHVISION = (('hidden1', 'classifier.0'), ('hidden2', 'classifier.3'), ('classifier', 'classifier.6'))
_VGG_TIMM = (('hidden1', 'pre_logits.fc1'), ('hidden2', 'pre_logits.fc2'), ('classifier', 'head.fc'))
_SEEN = ('hidden1', 7 * 7)
VGG16 = {
    'torchvision': Names(TORCH, _VGG16 + _VGG_TORCHVISION, _SEEN),
    'timm': Names(TORCH, _VGG16 + _VGG_TIMM, _SEEN),
    'keras': Names(KERAS, (
        ('conv*', 'block{s}_conv{b}'), ('hidden1', 'fc1'), ('hidden2', 'fc2'), ('classifier', 'predictions')))}
VGG16_BN = {
    'torchvision': Names(TORCH, _VGG16_BN + _VGG_TORCHVISION, _SEEN),
    'timm': Names(TORCH, _VGG16_BN + _VGG_TIMM, _SEEN)}

# Our block, the number of theirs, and where its first separable convolution stands in timm's list.
_XCEPTION = (('entry1', 1, 0), ('entry2', 2, 1), ('entry3', 3, 1),
             *((f'middle{i}', i + 3, 1) for i in range(1, 9)), ('exit', 12, 1))
XCEPTION = {
    'timm': Names(TORCH, (
        ('stem*', 'conv{s}', 'bn{s}'),
        *((f'{ours}_conv{i + 1}/{layer}', f'block{n}.rep.{at + 3 * i}.{theirs}', f'block{n}.rep.{at + 3 * i + 1}')
          for ours, n, at in _XCEPTION for i in range(3)
          for layer, theirs in (('depthwise', 'conv1'), ('pointwise', 'pointwise'))),
        *((f'{ours}_shortcut', f'block{n}.skip', f'block{n}.skipbn') for ours, n, _ in _XCEPTION),
        *((f'head{i}/{layer}', f'conv{i + 2}.{theirs}', f'bn{i + 2}') for i in (1, 2)
          for layer, theirs in (('depthwise', 'conv1'), ('pointwise', 'pointwise'))),
        ('classifier', 'fc'))),
    'keras': Names(KERAS, (
        ('stem*', 'block1_conv{s}', 'block1_conv{s}_bn'),
        *((f'{ours}_conv{i}/*', f'block{n + 1}_sepconv{i}/{{last}}', f'block{n + 1}_sepconv{i}_bn')
          for ours, n, _ in _XCEPTION for i in (1, 2, 3)),
        ('head*/*', 'block14_sepconv{s}/{last}', 'block14_sepconv{s}_bn'),
        ('entry1_shortcut', 'conv2d', 'batch_normalization'),
        ('entry2_shortcut', 'conv2d_1', 'batch_normalization_1'),
        ('entry3_shortcut', 'conv2d_2', 'batch_normalization_2'),
        ('exit_shortcut', 'conv2d_3', 'batch_normalization_3'),
        ('classifier', 'predictions')))}

_DENSENET = Names(TORCH, (
    ('stem', 'features.conv0', 'features.norm0'),
    ('layer*_bn', '', 'features.denseblock{s}.denselayer{b}.norm1'),
    ('layer*_bottleneck', 'features.denseblock{s}.denselayer{b}.conv1', 'features.denseblock{s}.denselayer{b}.norm2'),
    ('layer*_conv', 'features.denseblock{s}.denselayer{b}.conv2'),
    ('transition*_bn', '', 'features.transition{s}.norm'),
    ('transition*_conv', 'features.transition{s}.conv'),
    ('head_bn', '', 'features.norm5'),
    ('classifier', 'classifier')))
DENSENET = {
    'torchvision': _DENSENET,
    'timm': _DENSENET,
    'keras': Names(KERAS_RESNET, (
        ('stem', 'conv1_conv', 'conv1_bn'),
        ('layer*_bn', '', 'conv{s1}_block{b}_0_bn'),
        ('layer*_bottleneck', 'conv{s1}_block{b}_1_conv', 'conv{s1}_block{b}_1_bn'),
        ('layer*_conv', 'conv{s1}_block{b}_2_conv'),
        ('transition*_bn', '', 'pool{s1}_bn'),
        ('transition*_conv', 'pool{s1}_conv'),
        ('head_bn', '', 'bn'),
        ('classifier', 'predictions')))}

SHUFFLENET_V2 = {
    'torchvision': Names(TORCH, (
        ('stem', 'conv1.0', 'conv1.1'),
        ('block*/shortcut_depthwise', 'stage{s}.{b0}.branch1.0', 'stage{s}.{b0}.branch1.1'),
        ('block*/shortcut', 'stage{s}.{b0}.branch1.2', 'stage{s}.{b0}.branch1.3'),
        ('block*/reduce', 'stage{s}.{b0}.branch2.0', 'stage{s}.{b0}.branch2.1'),
        ('block*/depthwise', 'stage{s}.{b0}.branch2.3', 'stage{s}.{b0}.branch2.4'),
        ('block*/expand', 'stage{s}.{b0}.branch2.5', 'stage{s}.{b0}.branch2.6'),
        ('head', 'conv5.0', 'conv5.1'),
        ('classifier', 'fc')))}

NAMES = {
    'DenseNet': DENSENET, 'EfficientNet': EFFICIENTNET, 'MobileNetV1': MOBILENET_V1, 'MobileNetV2': MOBILENET_V2,
    'ResNet': RESNET, 'ShuffleNetV2': SHUFFLENET_V2, 'Xception': XCEPTION, 'vgg16': VGG16, 'vgg16_bn': VGG16_BN,
    'mobilenet_v3_large': _mobilenet_v3(15, 6), 'mobilenet_v3_small': _mobilenet_v3(11, 5)}
