"""Running folders of ELF test programs on the bare processor: the public RISC-V conformance suites."""
