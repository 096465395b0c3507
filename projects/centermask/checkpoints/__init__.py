"""Checkpoints: read without running their code, loaded strictly, refused with a sentence."""

from centermask.checkpoints import pretrained, released_layouts, safe_globals

__all__ = ['pretrained', 'released_layouts', 'safe_globals']
