"""doppel's speed and size, side by side with QEMU: ``python -m benchmarks``. See docs/benchmarks.md."""
