"""The privileged architecture: modes, traps, address translation, protection."""
