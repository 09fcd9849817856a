"""Virtio devices behind the MMIO transport. Source: Virtual I/O Device (VIRTIO) Version 1.2, OASIS."""
