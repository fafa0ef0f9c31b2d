"""Data sets: by name, in batches by step, augmented inside the compiled step."""
from effjax.data.augment import augment, normalize, standard
from effjax.data.batches import batches, evaluation_batches
from effjax.data.load import load
from effjax.data.source import Dataset, Source, joined, subset

__all__ = ['Dataset', 'Source', 'augment', 'batches', 'evaluation_batches', 'joined', 'load', 'normalize', 'standard',
           'subset']
