"""The file for the device: the network that was trained, as integers."""
from effjax.export.finalize import finalize
from effjax.export.litert import latency_ms, require
from effjax.export.network import Network, load, macs, node_bytes, save, weight_bytes
from effjax.export.simulate import simulate
from effjax.export.tflite import float_tflite, tflite
from effjax.export.verify import Report, verify

__all__ = ['Network', 'Report', 'finalize', 'float_tflite', 'latency_ms', 'load', 'macs', 'node_bytes', 'save',
           'require', 'simulate', 'tflite', 'verify', 'weight_bytes']
