"""Checkpoints: read without running their code, fitted strictly, refused with a sentence."""

from centermask.checkpoints import pretrained, safe_globals

__all__ = ['pretrained', 'safe_globals']
