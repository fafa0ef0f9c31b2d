"""The file for the device: the network that was trained, as integers."""
from effjax.export.finalize import finalize
from effjax.export.float_formats import float_tflite
from effjax.export.latency import latencies_ms, latency_ms, measure
from effjax.export.litert import require
from effjax.export.network import Network, load, macs, node_bytes, save, weight_bytes
from effjax.export.simulate import simulate
from effjax.export.sizes import Sizes, sizes
from effjax.export.tflite import tflite
from effjax.export.verify import Report, verify

__all__ = ['Network', 'Report', 'Sizes', 'finalize', 'float_tflite', 'latencies_ms', 'latency_ms', 'load', 'macs',
           'measure', 'node_bytes', 'require', 'save', 'simulate', 'sizes', 'tflite', 'verify', 'weight_bytes']
