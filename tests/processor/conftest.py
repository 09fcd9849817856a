"""Boards in each tier."""

from ..translate.support import tier

__all__ = ["tier"]
