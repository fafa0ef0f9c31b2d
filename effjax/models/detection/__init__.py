"""What detectors need beside a network: pure functions of boxes."""
from effjax.models.detection import losses
from effjax.models.detection.average_precision import average_precision
from effjax.models.detection.boxes import anchors, area, clip, decode, encode, iou
from effjax.models.detection.matching import Matches, match, sample
from effjax.models.detection.nms import detections, nms, proposals

__all__ = ['Matches', 'anchors', 'area', 'average_precision', 'clip', 'decode', 'detections', 'encode', 'iou', 'losses',
           'match', 'nms', 'proposals', 'sample']
