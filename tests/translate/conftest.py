"""Boards in each tier."""

from .support import tier

__all__ = ["tier"]
