"""From the definitions in :mod:`doppel.isa` to native code, through LLVM."""
