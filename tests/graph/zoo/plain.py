"""Plain functions of dictionaries of arrays."""
import jax
import jax.numpy as jnp
import numpy as np

from zoo import model, sequence, tokens

VOCABULARY, WIDTH, KV, PER, HEAD = 11, 12, 2, 3, 6  # query heads: KV * PER


def shapes(tree):
  return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), tree, is_leaf=lambda s: isinstance(s, tuple))


def rms_norm(x, scale):
  return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale


def angles(length, half):
  """(cos, sin) of (length, half) rotary angles, computed in the trace."""
  a = jnp.arange(length)[:, None] / 100.**(jnp.arange(half) / half)
  return jnp.cos(a), jnp.sin(a)


def rotate_halves(x):
  """Rotary embedding of (batch, length, ..., head): entry i turns with entry i + head / 2."""
  cos, sin = (t.reshape(t.shape[0], *(1,) * (x.ndim - 3), -1) for t in angles(x.shape[1], x.shape[-1] // 2))
  a, b = jnp.split(x, 2, -1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def rotate_pairs(x):
  """Rotary embedding where entry 2 i turns with entry 2 i + 1."""
  cos, sin = (t.reshape(t.shape[0], *(1,) * (x.ndim - 3), -1) for t in angles(x.shape[1], x.shape[-1] // 2))
  a, b = x[..., ::2], x[..., 1::2]
  return jnp.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(x.shape)


def causal(scores):
  length = scores.shape[-1]
  return jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -1e30), -1)


def grouped(p, x):
  """Grouped-query attention; every kind of head has an axis of its own."""
  q, k = rotate_halves(jnp.einsum('btc,ckgd->btkgd', x, p['q'])), rotate_halves(jnp.einsum('btc,ckd->btkd', x, p['k']))
  weights = causal(jnp.einsum('btkgd,bskd->bkgts', q, k) / np.sqrt(HEAD))
  heads = jnp.einsum('bkgts,bskd->btkgd', weights, jnp.einsum('btc,ckd->btkd', x, p['v']))
  return jnp.einsum('btkgd,kgdc->btc', heads, p['o'])


def fused(p, x):
  """Grouped-query attention of matrices: heads by reshape, keys and values repeated for each query head."""
  heads = lambda w: (x @ w).reshape(*x.shape[:2], -1, HEAD)
  k, v = (jnp.repeat(h, PER, 2) for h in (rotate_pairs(heads(p['k'])), heads(p['v'])))
  weights = causal(jnp.einsum('bthd,bshd->bhts', rotate_pairs(heads(p['q'])), k) / np.sqrt(HEAD))
  return jnp.einsum('bhts,bshd->bthd', weights, v).reshape(*x.shape[:2], -1) @ p['o']


def repeated(p, x):
  """Grouped-query attention whose heads are an axis of the weights, keys and values repeated."""
  heads = lambda w: jnp.einsum('btc,chd->bthd', x, w)
  k, v = (jnp.repeat(h, PER, 2) for h in (heads(p['k']), heads(p['v'])))
  weights = causal(jnp.einsum('bthd,bshd->bhts', heads(p['q']), k) / np.sqrt(HEAD))
  return jnp.einsum('bhts,bshd,hdc->btc', weights, v, p['o'])


def decoder(attention):
  """Pre-norm: two layers of attention and a gated unit; the embedding scores the tokens again."""
  def fn(params, ids):
    x = jnp.take(params['embedding'], ids, 0)
    for p in params['layers']:
      x = x + attention(p, rms_norm(x, p['norm1']))
      y = rms_norm(x, p['norm2'])
      x = x + (jax.nn.silu(y @ p['gate']) * (y @ p['up'])) @ p['down']
    return rms_norm(x, params['norm']) @ params['embedding'].T
  return fn


def decoder_shapes(q, kv, o):
  layer = lambda hidden: {'q': (WIDTH, *q), 'k': (WIDTH, *kv), 'v': (WIDTH, *kv), 'o': (*o, WIDTH), 'norm1': (WIDTH,),
                          'norm2': (WIDTH,), 'gate': (WIDTH, hidden), 'up': (WIDTH, hidden), 'down': (hidden, WIDTH)}
  return shapes({'embedding': (VOCABULARY, WIDTH), 'norm': (WIDTH,), 'layers': [layer(10), layer(9)]})


def stacked(params, ids):
  """The decoder with its layers in `lax.scan`, each rematerialised."""
  def layer(x, p):
    x = x + grouped(p, rms_norm(x, p['norm1']))
    y = rms_norm(x, p['norm2'])
    return x + (jax.nn.silu(y @ p['gate']) * (y @ p['up'])) @ p['down'], None
  x, _ = jax.lax.scan(jax.checkpoint(layer), jnp.take(params['embedding'], ids, 0), params['layers'])
  return rms_norm(x, params['norm']) @ params['embedding'].T


def stacked_shapes():
  tree = decoder_shapes((KV, PER, HEAD), (KV, HEAD), (KV, PER, HEAD))
  layers = jax.tree.map(lambda w: jax.ShapeDtypeStruct((3, *w.shape), w.dtype), tree['layers'][0])
  return {**tree, 'layers': layers}


def recurrent(p, x):
  """A gated recurrence: its states are the sequence that the next layer reads."""
  def step(h, x):
    gate = jax.nn.sigmoid(x @ p['gate'] + h @ p['back'])
    h = gate * h + (1. - gate) * jnp.tanh(x @ p['in'])
    return h, h
  _, states = jax.lax.scan(step, jnp.zeros((x.shape[0], 7)), x.swapaxes(0, 1))
  return jax.nn.relu(states @ p['hidden']).mean(0) @ p['out']


def tied(p, x, y):
  """Siamese: two inputs through the same weights, whose square matrix is used twice; a code and its reconstruction."""
  encode = lambda x: jnp.tanh(jnp.tanh(x @ p['in']) @ p['core']) @ p['core']
  a, b = encode(x), encode(y)
  return (a * b).sum(-1), a @ p['in'].T


MODELS = {
    'decoder': lambda: model(decoder(grouped), decoder_shapes((KV, PER, HEAD), (KV, HEAD), (KV, PER, HEAD)), tokens()),
    'decoder_fused': lambda: model(
        decoder(fused), decoder_shapes((KV * PER * HEAD,), (KV * HEAD,), (KV * PER * HEAD,)), tokens()),
    'decoder_repeated': lambda: model(
        decoder(repeated), decoder_shapes((KV * PER, HEAD), (KV, HEAD), (KV * PER, HEAD)), tokens()),
    'decoder_scanned': lambda: model(stacked, stacked_shapes(), tokens()),
    'recurrent': lambda: model(recurrent, shapes({'gate': (3, 7), 'back': (7, 7), 'in': (3, 7), 'hidden': (7, 5),
                                                  'out': (5, 2)}), sequence()),
    'tied': lambda: model(tied, shapes({'in': (3, 6), 'core': (6, 6)}), sequence()[:, 0], sequence()[:, 1])}
