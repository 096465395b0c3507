"""The semantic head: its loss at the images' size, and the classes that it predicts."""

import pytest
import torch
import torch.nn.functional as F
from helpers.read_configs import read_config
from helpers.small_model import sample
from mmdet.models.seg_heads import PanopticFPNHead
from mmdet.registry import MODELS
from mmengine.structures import PixelData
from torch import Tensor, nn

from centermask.semantic_head import CHANNELS, SemanticFPNHead

WIDTH = 32
SIZES = [(16, 24), (8, 12), (4, 6), (2, 3)]  # of P2 to P5, for an input of 64×96


def _head(stuff: int = 4) -> SemanticFPNHead:
    config = read_config('_base_/models/panoptic_centermask_star').model.semantic_head
    torch.manual_seed(0)
    return MODELS.build({**config, 'num_stuff_classes': stuff, 'in_channels': WIDTH, 'inner_channels': WIDTH})


def _pyramid(images: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(images, WIDTH, *size, generator=generator) for size in SIZES]


def _samples(classes: Tensor) -> list:
    """Return samples with semantic maps (N, H, W)."""
    samples = [sample(*image.shape) for image in classes]
    for one, image in zip(samples, classes, strict=True):
        one.gt_sem_seg = PixelData(sem_seg=image[None])
    return samples


def _classes(images: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 5, (images, 64, 96), generator=generator, dtype=torch.uint8)


def test_layers() -> None:
    """One, one, two and three convs without bias, each with a norm, before a 1×1 conv with bias."""
    head = _head()
    assert [len(level.conv) for level in head.conv_upsample_layers] == [1, 1, 2, 3]
    for module in (block for level in head.conv_upsample_layers for block in level.conv):
        assert module.conv.bias is None and module.conv.kernel_size == (3, 3)
        assert isinstance(module.norm, nn.GroupNorm) and module.norm.num_groups == 32
    assert head.conv_logits.kernel_size == (1, 1) and head.conv_logits.out_channels == 5
    assert head(_pyramid())['seg_preds'].shape == (1, 5, 16, 24)


def test_initial_weights() -> None:
    """He's for the outputs: a variance of 2 / (outputs · kernel)."""
    head = MODELS.build(read_config('_base_/models/panoptic_centermask_star').model.semantic_head)
    head.init_weights()
    conv = head.conv_upsample_layers[3].conv[0].conv.weight
    assert conv.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert head.conv_logits.weight.std().item() == pytest.approx((2 / 54) ** 0.5, rel=0.05)
    assert not head.conv_logits.bias.any()


def test_loss_is_the_mean_over_the_pixels_that_count() -> None:
    """In the input's size, half the cross entropy, without the pixels of 255."""
    head, pyramid, classes = _head(), _pyramid(2), _classes(2)
    classes[0, :, 60:] = 255
    classes[1, 40:] = 255
    logits = F.interpolate(head(pyramid)['seg_preds'], size=(64, 96), mode='bilinear', align_corners=False)
    counted = classes != 255
    log_odds = logits.log_softmax(1).permute(0, 2, 3, 1)[counted]
    expected = -log_odds.gather(1, classes[counted].long()[:, None]).mean() / 2
    losses = head.loss(pyramid, _samples(classes))
    assert list(losses) == ['loss_seg']
    torch.testing.assert_close(losses['loss_seg'], expected, rtol=1e-5, atol=0)


def test_no_pixel_counts() -> None:
    """The loss is 0 and still reaches every parameter, as DDP expects."""
    head = _head()
    loss = head.loss(_pyramid(), _samples(torch.full((1, 64, 96), 255, dtype=torch.uint8)))['loss_seg']
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


@pytest.mark.parametrize('stuff', [4, CHANNELS - 1, 2 * CHANNELS])
@pytest.mark.parametrize('original', [(60, 90), (40, 70), (181, 275)])
@torch.no_grad()
def test_classes_are_those_of_the_largest_logits(stuff: int, original: tuple[int, int]) -> None:
    """Of logits that are enlarged all at once, cut to the image and resized; several images, several sizes."""
    head, pyramid = _head(stuff), _pyramid(2)
    metas = [
        dict(img_shape=(60, 90), ori_shape=original, batch_input_shape=(64, 96)),
        dict(img_shape=(50, 96), ori_shape=(50, 96), batch_input_shape=(64, 96)),
    ]
    logits = PanopticFPNHead.predict(head, pyramid, metas, rescale=True)
    found = head.predict(pyramid, metas, rescale=True)
    assert [tuple(classes.shape) for classes in found] == [original, (50, 96)]
    for classes, image in zip(found, logits, strict=True):
        assert classes.dtype == torch.long and torch.equal(classes, image.argmax(0))
    assert len(found[0].unique()) > 2
    unscaled = head.predict(pyramid, metas)
    assert torch.equal(unscaled[0], PanopticFPNHead.predict(head, pyramid, metas)[0][:, :60, :90].argmax(0))


@torch.no_grad()
def test_of_equal_logits_the_first_class_counts() -> None:
    head = _head(2 * CHANNELS)
    nn.init.zeros_(head.conv_logits.weight)
    nn.init.zeros_(head.conv_logits.bias)
    head.conv_logits.bias[[2, CHANNELS + 1]] = 1
    (classes,) = head.predict(_pyramid(), [dict(img_shape=(60, 90), ori_shape=(60, 90))])
    assert (classes == 2).all()
