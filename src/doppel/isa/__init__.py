"""The RISC-V instruction set, each instruction and CSR written once."""
