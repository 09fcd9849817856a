"""Backends: what stands behind a device in the host's world: streams of characters, disks, networks,
directories.
"""
