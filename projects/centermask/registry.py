"""The registry of the transform that MMDetection's own has under its name already.

``dict(type='Resize', _scope_='centermask')`` and ``'centermask.Resize'`` name ours; MMEngine looks for this module.
"""

from mmengine.registry import TRANSFORMS as ROOT
from mmengine.registry import Registry

TRANSFORMS = Registry('transform', parent=ROOT, scope='centermask', locations=['centermask.datasets'])
