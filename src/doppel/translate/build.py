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
import msgspec

from doppel.cache import Cache
from doppel.errors import DoppelError
from doppel.translate.regions.templates import TemplateKit

__all__ = [
    "EngineCode",
    "build_object",
    "engine_object",
    "load_engine",
    "load_kit",
    "object_key",
    "target_machine",
]

EXPORTED = (
    "doppel_run",
    "doppel_post",
    "doppel_code_overwritten",
    "doppel_cover",
    "doppel_enter_at",
    "doppel_helpers",
)
_SOURCES = ("isa", "translate", "memory/entry.py")


@dataclass(frozen=True)
class EngineCode:
    """Native code in memory: host addresses by name. It is never changed, so all machines share it."""

    addresses: dict[str, int]
    built: bool
    tracker: Any = field(repr=False)


def target_machine(optimization: int = 2) -> Any:
    """LLVM's code generator for this host."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=optimization,
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


class Built(msgspec.Struct, frozen=True):
    """What is made of the engine's sources: an object file and, encoded, the kit for regions."""

    object: bytes
    kit: bytes


def build_object() -> Built:
    """Generate, optimize and compile the engine; takes a few seconds."""
    from doppel.translate.module import module_text

    machine = target_machine()
    text, kit = module_text(machine.triple, str(machine.target_data))
    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return Built(bytes(machine.emit_object(module)), msgspec.msgpack.encode(kit))


@functools.cache
def _load_parts() -> tuple[Built, bool]:
    """What was built, from the cache if it was before; and whether it had to be built now.

    A cache that cannot be used is no reason to fail: the engine is then built each time. What is in the cache
    stands behind its digest; what does not fit its digest is built and written again.
    """
    name = f"engine/{object_key()}.o"
    image = _cached(name)
    if image:
        return msgspec.msgpack.decode(image, type=Built), False
    built = build_object()
    image = msgspec.msgpack.encode(built)
    with contextlib.suppress(DoppelError):
        Cache().write(name, hashlib.sha256(image).digest() + image)
    return built, True


@functools.cache
def load_engine() -> EngineCode:
    """The engine's code, ready to run."""
    parts, built = _load_parts()
    code = _link(parts.object)
    addresses = {symbol: int(code[symbol]) for symbol in EXPORTED}
    return EngineCode(addresses, built, code)


def engine_object() -> bytes:
    """The object file that :func:`load_engine` loads."""
    return _load_parts()[0].object


@functools.cache
def load_kit() -> TemplateKit:
    """What regions that may call this engine are made from."""
    return msgspec.msgpack.decode(_load_parts()[0].kit, type=TemplateKit)


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
    machine = target_machine()
    jit = llvm.create_lljit_compiler(machine, use_jit_link=True)
    library = llvm.JITLibraryBuilder().add_object_img(image).add_current_process()
    for symbol in EXPORTED:
        library.export_symbol(symbol)
    return library.link(jit, "engine")
