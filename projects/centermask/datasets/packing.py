"""The last step of a pipeline, with the product of all its resizes."""

from __future__ import annotations

from typing import Any

import mmdet.datasets.transforms


class PackDetInputs(mmdet.datasets.transforms.PackDetInputs):
    """MMDetection's, with the factor of all resizes as ``scale_factor``.

    MMDetection's ``Resize`` replaces that of an earlier one, and without a resize there is none. Each step multiplies
    its own matrix to ``homography_matrix``.
    """

    def transform(self, results: dict) -> dict:
        factors = results.get('scale_factor', (1.0, 1.0))
        matrix = results.get('homography_matrix')
        if matrix is not None:
            product = abs(float(matrix[0][0])), abs(float(matrix[1][1]))  # below 0 in a flipped image
            if any(abs(p / f - 1) > 1e-5 for p, f in zip(product, factors, strict=True)):
                factors = product  # else scale_factor is more precise
        packed = super().transform(results)
        packed['data_samples'].set_metainfo({'scale_factor': factors})  # whatever ``meta_keys`` are
        return packed


def pack_all_resizes(config: Any) -> Any:
    """Return a config with this ``PackDetInputs`` for each of MMDetection's.

    Args:
        config: of a data loader, a data set or a pipeline.
    """
    if isinstance(config, list | tuple):
        return type(config)([pack_all_resizes(entry) for entry in config])
    if not isinstance(config, dict):
        return config
    changed = type(config)({key: pack_all_resizes(value) for key, value in config.items()})
    if config.get('type') in ('PackDetInputs', 'mmdet.PackDetInputs', mmdet.datasets.transforms.PackDetInputs):
        changed['type'] = PackDetInputs
    return changed
