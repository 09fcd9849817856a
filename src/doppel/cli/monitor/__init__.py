"""The monitor prompt: a machine that stands still, looked at and changed by hand.

Its commands are the console functions that virtual machines have had since CP-67: display and store registers
and memory, step, trace, begin again, reset.
"""
