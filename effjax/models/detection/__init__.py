"""What detectors need beside a network: pure functions of boxes."""
from effjax.models.detection import losses
from effjax.models.detection.average_precision import average_precision
from effjax.models.detection.boxes import anchors, area, clip, decode, encode, iou
from effjax.models.detection.matching import Matches, match, sample
from effjax.models.detection.nms import detections, nms, proposals
from effjax.models.detection.two_stage import Found, Losses, detect, two_stage_losses

__all__ = ['Found', 'Losses', 'Matches', 'anchors', 'area', 'average_precision', 'clip', 'decode', 'detect',
           'detections', 'encode', 'iou', 'losses', 'match', 'nms', 'proposals', 'sample', 'two_stage_losses']
