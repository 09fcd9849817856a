"""Kernel modules of a Linux package: which ones a wish list needs, and the tables modprobe reads.

Debian's packages hold no `modules.dep`; depmod makes it when the package is installed. Here it is made from
the same source, the `.modinfo` section of each module (`depends=`, `softdep=`, `alias=`; see
include/linux/module.h of the Linux sources), but for the wanted modules only.
"""

from __future__ import annotations

import gzip
import io
import lzma
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from doppel.errors import DoppelError
from doppel.guests.strip import lean

__all__ = ["Module", "alias_table", "dependency_table", "select"]


@dataclass(frozen=True, slots=True)
class Module:
    """A module, decompressed and made lean; `path` is relative to /lib/modules/RELEASE and ends in .ko."""

    name: str
    path: str
    data: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


def select(files: Mapping[str, bytes], wanted: Iterable[str]) -> list[Module]:
    """The wanted modules and all that they depend on, each after its dependencies.

    `files` maps paths as in the package (`kernel/fs/ext4/ext4.ko.xz`) to contents. A wanted module that is
    not there is left out: it is built into this kernel, or the kernel does without. A missing dependency of
    a module that is there is a damaged package: `DoppelError`.
    """
    paths = {_name(path): path for path in files}
    chosen: dict[str, Module] = {}

    def add(name: str, needed_by: str) -> None:
        if name in chosen:
            return
        if name not in paths:
            raise DoppelError(f"the kernel package lacks the module {name} that {needed_by} depends on")
        module = _load(name, paths[name], files[paths[name]])
        for dependency in module.depends:
            if dependency == name or dependency in unfinished:
                raise DoppelError(f"the kernel modules {name} and {dependency} depend on each other")
            unfinished.append(name)
            add(dependency, name)
            unfinished.pop()
        chosen[name] = module

    unfinished: list[str] = []
    for wish in map(_canonical, wanted):
        if wish in paths:
            add(wish, "the machine")
    return list(chosen.values())


def dependency_table(modules: Iterable[Module]) -> str:
    """`modules.dep`: each module's path, and the paths of all it needs, nearest first."""
    known = {module.name: module for module in modules}

    def needs(module: Module) -> list[str]:
        found: dict[str, None] = {}
        for name in module.depends:
            found[known[name].path] = None
            found.update(dict.fromkeys(needs(known[name])))
        return list(found)

    return "".join(f"{' '.join([module.path + ':', *needs(module)])}\n" for module in known.values())


def alias_table(modules: Iterable[Module]) -> str:
    """`modules.alias`: the names by which kernel and devices ask for modules."""
    return "".join(f"alias {alias} {module.name}\n" for module in modules for alias in module.aliases)


def _canonical(name: str) -> str:
    # The kernel treats - and _ in module names alike and uses _ itself.
    return name.replace("-", "_")


def _name(path: str) -> str:
    return _canonical(path.rsplit("/", 1)[-1].split(".ko", 1)[0])


def _load(name: str, path: str, data: bytes) -> Module:
    # Imported where it is used: a guest that is in the cache is started without it.
    from elftools.elf.elffile import ELFFile

    stem, compression = path.rsplit(".ko", 1)
    try:
        match compression:
            case "":
                pass
            case ".xz":
                data = lzma.decompress(data)
            case ".gz":
                data = gzip.decompress(data)
            case _:
                raise DoppelError(
                    f"the kernel module {path} is compressed in a way that doppel cannot read",
                    "use a kernel package from Debian itself (its modules are compressed with xz)",
                )
        section = ELFFile(io.BytesIO(data)).get_section_by_name(".modinfo")
        information = section.data() if section is not None else b""
    except DoppelError:
        raise
    except Exception as error:
        # The ELF library meets damaged files with exceptions of a dozen kinds.
        raise DoppelError(f"the kernel module {path} is damaged: {error}", "get the package again") from error
    facts: dict[str, list[str]] = {}
    for fact in information.split(b"\0"):
        key, _, value = fact.decode("utf-8", "replace").partition("=")
        facts.setdefault(key, []).append(value)
    depends = tuple(_canonical(word) for word in ",".join(facts.get("depends", [])).split(",") if word)
    return Module(name, stem + ".ko", lean(data), depends, tuple(facts.get("alias", [])))
