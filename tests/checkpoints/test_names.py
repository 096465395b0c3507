"""Templates of names, read and filled."""

import pytest

from centermask.checkpoints.names import NameTable, Template, prefixed


@pytest.mark.parametrize(
    ('template', 'name', 'values'),
    [
        ('cls_tower.{3i}.{*}', 'cls_tower.6.weight', {'i': 2, '*': 'weight'}),
        ('cls_tower.{3i+1}.{*}', 'cls_tower.10.bias', {'i': 3, '*': 'bias'}),
        ('stage{s+2}.OSA{s+2}_{b+1}.{*}', 'stage5.OSA5_3.weight', {'s': 3, 'b': 2, '*': 'weight'}),
        ('stem_{i+1}/conv.weight', 'stem_1/conv.weight', {'i': 0}),
        ('{i}', '120', {'i': 120}),
        ('{*}.{*}', 'norm.norm', {'*': 'norm'}),
    ],
)
def test_both_ways(template: str, name: str, values: dict) -> None:
    assert Template(template).match(name) == values
    assert Template(template).fill(values) == name


@pytest.mark.parametrize(
    ('template', 'name'),
    [
        ('cls_tower.{3i}.{*}', 'cls_tower.7.weight'),  # no multiple of three
        ('cls_tower.{3i+1}.{*}', 'cls_tower.0.weight'),  # less than the offset
        ('stem_{i+1}', 'stem_0'),
        ('stage{s+2}.OSA{s+2}', 'stage3.OSA4'),  # two values of one letter
        ('{*}.{*}', 'norm.bn'),
        ('conv{i}', 'conv01'),  # its inverse would be conv1
        ('conv{i}', 'conv٣'),  # a digit outside ASCII
        ('conv{i}', 'conv'),
        ('conv{i}', 'conv-1'),
        ('conv.{*}', 'conv.bn.weight'),  # a word has no dots
        ('conv.{*}', 'conv.'),
        ('conv.{*}', 'my.conv.weight'),  # the complete name must match
        ('stem.{*}', 'stem.weight\n'),
        ('a.b', 'axb'),  # the dot is literal
    ],
)
def test_no_match(template: str, name: str) -> None:
    assert Template(template).match(name) is None


def test_the_first_row_that_fits_decides() -> None:
    table = NameTable(prefixed('body.', 'backbone.', [('bn{i}.{*}', 'norm{i+1}.{*}'), ('{*}.weight', 'rest.{*}')]))
    assert table.from_release('body.bn2.weight') == 'backbone.norm3.weight'
    assert table.from_release('body.fc.weight') == 'backbone.rest.fc'
    assert table.from_release('body.fc.bias') is None
    assert table.to_release('backbone.norm3.weight') == 'body.bn2.weight'
    assert table.to_release('backbone.norm0.weight') is None
