"""DARTS' supernet as it is usually written, in Flax and in PyTorch: what `supernet.py` measures effjax against.

Nothing of effjax. Both have the same convolutions, pools and BatchNorms on every edge, eight operators in the order of
`effjax.search.darts_space.OPERATORS`, BatchNorm without scale and bias in cells, padding by (k - 1) / 2.
"""
import flax.linen as nn
import jax.numpy as jnp

NODES, OPERATORS = 4, 8


def plan(cells, features):
  """(features, strides, whether the cell before it reduces) of each cell."""
  reduce = (cells // 3, 2 * cells // 3)
  return [(features * 2 ** sum(r <= i for r in reduce), 1 + (i in reduce), i - 1 in reduce) for i in range(cells)]


# --- Flax ---------------------------------------------------------------------------------------------------------

class FlaxSupernet(nn.Module):
  """`(x, {'normal': [14, 8], 'reduce': [14, 8]}) -> logits`, the weights after their softmax."""
  features: int
  cells: int

  @nn.compact
  def __call__(self, x, weights):
    norm = lambda x, affine=False: nn.BatchNorm(False, momentum=.9, epsilon=1e-5, use_scale=affine, use_bias=affine)(x)
    conv = lambda x, f, k=1, s=1, d=1, groups=1: nn.Conv(
        f, (k, k), (s, s), [((k - 1) * d // 2,) * 2] * 2, kernel_dilation=d, feature_group_count=groups,
        use_bias=False)(x)

    def separable(x, f, k, s=1, d=1):
      return norm(conv(conv(nn.relu(x), f, k, s, d, groups=f), f))

    def skip(x, f, s):
      if s == 1:
        return x
      x = nn.relu(x)
      return norm(jnp.concatenate([conv(x, f // 2, s=2), conv(x[:, 1:, 1:], f // 2, s=2)], -1))

    def mixed(x, p, f, s):
      pads = ((1, 1), (1, 1))
      return sum(a * y for a, y in zip(p, (
          0 * x[:, ::s, ::s], norm(nn.max_pool(x, (3, 3), (s, s), pads)),
          norm(nn.avg_pool(x, (3, 3), (s, s), pads, count_include_pad=False)), skip(x, f, s),
          separable(separable(x, f, 3, s), f, 3), separable(separable(x, f, 5, s), f, 5), separable(x, f, 3, s, 2),
          separable(x, f, 5, s, 2))))

    x0 = x1 = norm(conv(x, 3 * self.features, 3), True)
    for f, s, reduced in plan(self.cells, self.features):
      states = [skip(x0, f, 2) if reduced else norm(conv(nn.relu(x0), f)), norm(conv(nn.relu(x1), f))]
      p = iter(weights['normal' if s == 1 else 'reduce'])
      for _ in range(NODES):
        states.append(sum(mixed(x, next(p), f, s if i < 2 else 1) for i, x in enumerate(states)))
      x0, x1 = x1, jnp.concatenate(states[2:], -1)
    return nn.Dense(10)(x1.mean((1, 2)))


# --- PyTorch ------------------------------------------------------------------------------------------------------

def torch_steps(features, cells, batches, rate):
  """Calls of a weight step, a first-order and a second-order architecture step; batches are (images NHWC, labels)."""
  import torch
  from torch import nn
  from torch.nn import functional

  def separable(f, k, s=1, d=1):
    return [nn.ReLU(), nn.Conv2d(f, f, k, s, (k - 1) * d // 2, d, f, bias=False), nn.Conv2d(f, f, 1, bias=False),
            nn.BatchNorm2d(f, affine=False)]

  class Reduce(nn.Module):
    def __init__(self, i, f):
      super().__init__()
      self.even, self.odd = (nn.Conv2d(i, f // 2, 1, 2, bias=False) for _ in range(2))
      self.norm = nn.BatchNorm2d(f, affine=False)

    def forward(self, x):
      x = torch.relu(x)
      return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], 1))

  class Zero(nn.Module):
    def __init__(self, s):
      super().__init__()
      self.s = s

    def forward(self, x):
      return x[:, :, ::self.s, ::self.s].mul(0.)

  def operators(f, s):
    norm = lambda: nn.BatchNorm2d(f, affine=False)
    return nn.ModuleList([
        Zero(s), nn.Sequential(nn.MaxPool2d(3, s, 1), norm()),
        nn.Sequential(nn.AvgPool2d(3, s, 1, count_include_pad=False), norm()),
        nn.Identity() if s == 1 else Reduce(f, f), nn.Sequential(*separable(f, 3, s), *separable(f, 3)),
        nn.Sequential(*separable(f, 5, s), *separable(f, 5)), nn.Sequential(*separable(f, 3, s, 2)),
        nn.Sequential(*separable(f, 5, s, 2))])

  class Cell(nn.Module):
    def __init__(self, before, last, f, s, reduced):
      super().__init__()
      fit = lambda i: nn.Sequential(nn.ReLU(), nn.Conv2d(i, f, 1, bias=False), nn.BatchNorm2d(f, affine=False))
      self.fit0, self.fit1 = Reduce(before, f) if reduced else fit(before), fit(last)
      self.edges = nn.ModuleList([operators(f, s if i < 2 else 1) for j in range(NODES) for i in range(2 + j)])

    def forward(self, x0, x1, weights):
      states, edges = [self.fit0(x0), self.fit1(x1)], iter(zip(self.edges, weights, strict=True))
      for _ in range(NODES):
        mixed = lambda x: (lambda ops, p: sum(a * op(x) for a, op in zip(p, ops, strict=True)))(*next(edges))
        states.append(sum([mixed(x) for x in states]))
      return torch.cat(states[2:], 1)

  class Supernet(nn.Module):
    def __init__(self):
      super().__init__()
      self.stem = nn.Sequential(nn.Conv2d(3, 3 * features, 3, padding=1, bias=False), nn.BatchNorm2d(3 * features))
      made, before, last, self.kinds = [], 3 * features, 3 * features, []
      for f, s, reduced in plan(cells, features):
        made.append(Cell(before, last, f, s, reduced))
        self.kinds.append(s - 1)
        before, last = last, 4 * f
      self.cells, self.head = nn.ModuleList(made), nn.Linear(last, 10)

    def forward(self, x, decisions):
      x0 = x1 = self.stem(x)
      for kind, cell in zip(self.kinds, self.cells, strict=True):
        x0, x1 = x1, cell(x0, x1, decisions[kind].softmax(-1))
      return self.head(x1.mean((2, 3)))

  net = Supernet().to(memory_format=torch.channels_last).train()
  decisions = [torch.zeros(14, OPERATORS, requires_grad=True) for _ in range(2)]
  used = [decisions[k] for k in sorted(set(net.kinds))]
  weights = list(net.parameters())
  optimizer = torch.optim.SGD(weights, rate, .9)
  put = lambda x, y: (torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).to(memory_format=torch.channels_last),
                      torch.from_numpy(y).long())
  train, held_out = (put(*batch) for batch in batches)
  loss = lambda batch: functional.cross_entropy(net(batch[0], decisions), batch[1])

  def weight():
    optimizer.zero_grad()
    grads = torch.autograd.grad(loss(train), weights)
    for w, g in zip(weights, grads, strict=True):
      w.grad = g
    optimizer.step()

  def first():
    return torch.autograd.grad(loss(held_out), used)

  def second():
    moved = lambda by, directions: [w.add_(d, alpha=by) for w, d in zip(weights, directions, strict=True)]
    inner = torch.autograd.grad(loss(train), weights)
    with torch.no_grad():
      moved(-rate, inner)
    both = torch.autograd.grad(loss(held_out), weights + used)
    u, da = both[:len(weights)], both[len(weights):]
    with torch.no_grad():
      moved(rate, inner)
      eps = .01 / torch.sqrt(sum((x ** 2).sum() for x in u)).item()
      moved(eps, u)
    plus = torch.autograd.grad(loss(train), used)
    with torch.no_grad():
      moved(-2 * eps, u)
    minus = torch.autograd.grad(loss(train), used)
    with torch.no_grad():
      moved(eps, u)
    return [a - rate * (p - m) / (2 * eps) for a, p, m in zip(da, plus, minus, strict=True)]
  return {'weight': weight, 'first': first, 'second': second}
