"""What a teacher adds to the loss: `effjax.term.Term`s."""
from effjax.distill.features import features
from effjax.distill.logits import logits

__all__ = ['features', 'logits']
