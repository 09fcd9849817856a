"""A directory of the host served to a guest: a 9P2000.L server that cannot be led out of its directory."""

from doppel.devices.backends.share.server import BadMessage, Message, ShareServer

__all__ = ["BadMessage", "Message", "ShareServer"]
