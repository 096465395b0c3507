"""The scope ``centermask`` of MMEngine: registries, and models by name.

Each registry is a child of MMDetection's of its kind and finds what that has, so a model can be built with
``scope='centermask'`` as with ``'mmdet'``. Its own is the transform that MMDetection has under its name already:
``dict(type='Resize', _scope_='centermask')`` and ``'centermask.Resize'`` name ours.
"""

import mmdet.registry
import mmengine.registry
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry

REGISTRIES = {
    name: Registry(parent.name, parent=parent, scope='centermask', locations=['centermask'])
    for name, parent in {**vars(mmengine.registry), **vars(mmdet.registry)}.items()
    if isinstance(parent, Registry)
}
TRANSFORMS = REGISTRIES['TRANSFORMS']

# The packages in whose .mim folder MMEngine looks for a model's name: DetInferencer(NAME, scope='centermask').
MODULE2PACKAGE['centermask'] = 'centermask'
