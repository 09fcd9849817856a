"""The engine's own functions, written in the compiled language with pointers."""
