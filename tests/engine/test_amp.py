"""Mixed precision without a GPU."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from centermask.engine.amp import NonFiniteSafeAmpOptimWrapper, use_half_precision
from centermask.utils.errors import InputError

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='here MMEngine does it all')


def _build(model: nn.Module, **kwargs: object) -> OptimWrapper:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return OPTIM_WRAPPERS.build(dict(type='NonFiniteSafeAmpOptimWrapper', optimizer=optimizer, **kwargs))


@pytest.mark.parametrize('kwargs', [{}, {'loss_scale': 512.0}, {'dtype': 'float16'}])
def test_trains_in_bfloat16(kwargs: dict) -> None:
    model = nn.Linear(4, 2)
    before = model.weight.detach().clone()
    wrapper = _build(model, **kwargs)
    with wrapper.optim_context(model):
        output = model(torch.ones(3, 4))
    assert isinstance(wrapper, NonFiniteSafeAmpOptimWrapper) and output.dtype == torch.bfloat16
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32 and not torch.equal(model.weight, before)


def test_half_precision_is_for_a_centermask_on_a_device_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(dict(model=dict(type='CenterMask')))
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: False)
    with pytest.raises(InputError, match='would be slower: leave --amp out'):
        use_half_precision(config, 'cpu')
    use_half_precision(config, 'cuda:0')
    assert config.model.half_precision
    with pytest.raises(InputError, match='is a MaskRCNN, which has no half precision here: leave --amp out'):
        use_half_precision(Config(dict(model=dict(type='MaskRCNN'))), 'cuda')
    with pytest.raises(InputError, match='an exported file has its precision'):
        use_half_precision(config, 'cuda', exported=True)
