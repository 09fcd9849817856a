"""Devices: small classes that know the bus, a view of guest memory, interrupt lines and their backends."""
