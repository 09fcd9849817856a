"""doppel: a virtual machine monitor programmed in Python."""
