"""The supervisor binary interface: doppel as its guest's firmware, one module for each extension."""
