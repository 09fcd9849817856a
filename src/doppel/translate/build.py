"""Making the engine's native code: once for each host and version of the sources, kept as an object file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from doppel.cache import Cache
from doppel.errors import DoppelError

__all__ = ["EngineCode", "build_object", "load_engine", "object_key"]

EXPORTED = ("doppel_run", "doppel_post", "doppel_code_overwritten")
_SOURCES = ("isa", "translate", "memory/entry.py")


@dataclass(frozen=True)
class EngineCode:
    """Native code in memory: host addresses by name. It is never changed, so all machines share it."""

    addresses: dict[str, int]
    built: bool
    tracker: Any = field(repr=False)


def _target_machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
        reloc="pic",
        codemodel="small",
    )


@functools.cache
def object_key() -> str:
    """A name for the object: everything its content depends on."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for source in _SOURCES:
        path = root / source
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(file.read_bytes())
    host = (
        llvmlite.__version__,
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        platform.machine(),
    )
    digest.update("\0".join(host).encode())
    return digest.hexdigest()[:32]


def build_object() -> bytes:
    """Generate, optimize and compile the engine; takes a few seconds."""
    from doppel.translate.module import module_text

    machine = _target_machine()
    module = llvm.parse_assembly(module_text(machine.triple, str(machine.target_data)))
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))


@functools.cache
def load_engine() -> EngineCode:
    """The engine's code, from the cache if it was built before.

    A cache that cannot be used is no reason to fail: the engine is then built each time. What is in the cache
    is an object file behind its digest; one that does not fit its digest is built and written again.
    """
    name = f"engine/{object_key()}.o"
    image, built = _cached(name), False
    if not image:
        image, built = build_object(), True
        with contextlib.suppress(DoppelError):
            Cache().write(name, hashlib.sha256(image).digest() + image)
    code = _link(image)
    addresses = {symbol: int(code[symbol]) for symbol in EXPORTED}
    return EngineCode(addresses, built, code)


def _cached(name: str) -> bytes:
    """The object in the cache, or nothing."""
    try:
        content = (Cache().root / name).read_bytes()
    except (OSError, DoppelError):
        return b""
    size = hashlib.sha256().digest_size
    digest, image = content[:size], content[size:]
    return image if hashlib.sha256(image).digest() == digest else b""


def _link(image: bytes) -> Any:
    machine = _target_machine()
    jit = llvm.create_lljit_compiler(machine, use_jit_link=True)
    library = llvm.JITLibraryBuilder().add_object_img(image).add_current_process()
    for symbol in EXPORTED:
        library.export_symbol(symbol)
    return library.link(jit, "engine")
