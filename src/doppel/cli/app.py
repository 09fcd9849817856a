"""The commands and their options; what they do is in the modules that they import when they run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError

from doppel.errors import DoppelError

__all__ = ["app", "dispatch"]

app = App(
    name="doppel",
    help="A virtual machine monitor: RISC-V machines that boot real systems.",
    usage="Usage: doppel COMMAND ...",
    default_parameter=Parameter(negative=(), show_default=False),
    help_format="plaintext",
    version_flags=["--version"],
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    print_error=False,
    exit_on_error=False,
)

GUEST = Group("Guest", sort_key=1)
DEVICES = Group("Machine", sort_key=2)
SESSION = Group("Session", sort_key=3)
DOWNLOADS = Group("Downloads", sort_key=4)

Mirror = Annotated[str, Parameter(group=DOWNLOADS)]
Debs = Annotated[tuple[Path, ...], Parameter(group=DOWNLOADS, consume_multiple=True)]
Keyring = Annotated[Path | None, Parameter(group=DOWNLOADS)]
Refresh = Annotated[bool, Parameter(group=DOWNLOADS)]
# As doppel.processor.compilation.CompileMode, which takes a moment to import.
Compile = Literal["hot", "all", "off"]


def dispatch(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; the exit status.

    Raises:
        DoppelError: the arguments are wrong, or something that they name is.
    """
    app.version = _version
    if not arguments:
        arguments = ["--help"]
    try:
        result = app(list(arguments))
    except CycloptsError as error:
        raise DoppelError(_what_is_wrong(error), f"see: {_help_command(arguments)}") from error
    return result if isinstance(result, int) else 0


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("doppel")
    except PackageNotFoundError:
        return "unknown: the package is not installed"


def _what_is_wrong(error: CycloptsError) -> str:
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected argument {error.unused_tokens[0]!r}"
    return str(error).strip() or "the command line is wrong"


def _help_command(arguments: Sequence[str]) -> str:
    known = [name for name in arguments[:1] if name in ("run", "images", "doctor", "conformance")]
    return " ".join(["doppel", *known, "--help"])


@app.command(usage="Usage: doppel run [GUEST | KERNEL] [OPTIONS]")
def run(
    guest: Annotated[str, Parameter(group=GUEST)] = "",
    /,
    *,
    kernel: Annotated[Path | None, Parameter(group=GUEST)] = None,
    initrd: Annotated[Path | None, Parameter(group=GUEST)] = None,
    append: Annotated[str, Parameter(group=GUEST)] = "",
    firmware: Annotated[str, Parameter(group=GUEST)] = "",
    memory: Annotated[str, Parameter(group=DEVICES)] = "512M",
    harts: Annotated[int, Parameter(group=DEVICES)] = 1,
    disk: Annotated[tuple[str, ...], Parameter(group=DEVICES)] = (),
    net: Annotated[tuple[str, ...], Parameter(group=DEVICES)] = (),
    share: Annotated[tuple[str, ...], Parameter(group=DEVICES)] = (),
    clock: Annotated[Literal["host", "icount"], Parameter(group=DEVICES)] = "host",
    compile: Annotated[Compile, Parameter(group=DEVICES)] = "hot",
    command: Annotated[str | None, Parameter(group=SESSION)] = None,
    timeout: Annotated[float | None, Parameter(group=SESSION)] = None,
    stats: Annotated[bool, Parameter(group=SESSION)] = False,
    perf_map: Annotated[bool, Parameter(group=SESSION)] = False,
    symbols: Annotated[Path | None, Parameter(group=SESSION)] = None,
    mirror: Mirror = "",
    deb: Debs = (),
    keyring: Keyring = None,
    refresh: Refresh = False,
) -> int:
    """Start a machine and connect this terminal to its console.

    Without arguments: Debian's kernel and a busybox shell.

    Ctrl-A h shows the keys that doppel itself takes, Ctrl-A x ends the machine.

    The exit status is the guest's where it sets one.

    Parameters
    ----------
    guest:
        A guest that doppel knows by name (see: doppel images), or the file of a kernel. Default: debian.
    kernel:
        A kernel: a Linux Image, an ELF executable or a raw binary; plain, compressed, or a Debian package.
    initrd:
        An initramfs or initial RAM disk for the kernel.
    append:
        More for the kernel's command line.
    firmware:
        What runs in M mode: sbi (doppel answers the kernel's SBI calls; the default for most), opensbi
        (Debian's), a file, or none: the kernel itself (the default for ELF files that begin at 0x80000000).
    memory:
        Memory of the machine, 512M by default; K, M or G may follow the number.
    harts:
        Number of hardware threads, 1 by default.
    disk:
        PATH[,readonly|,snapshot]: a raw disk image. With snapshot the file stays as it is.
    net:
        loopback, tap or tap:NAME: a network card and what it is connected to.
    share:
        DIR[:TAG][,readonly]: a folder of this host that the guest can mount by its tag.
    clock:
        host (the default): time passes as on this host; icount: as instructions are executed, which makes
        runs repeatable.
    compile:
        hot (the default): compile what the guest executes often; all: everything, before it is executed for
        the first time; off: nothing.
    command:
        Run this in the guest instead of a shell, and exit with its status.
    timeout:
        Seconds after which to end the machine, with status 124.
    stats:
        Show more statistics at the end than the one line.
    perf_map:
        Write /tmp/perf-PID.map, so that Linux's perf shows the guest's functions.
    symbols:
        Names of the kernel's functions, for --perf-map and the monitor prompt: an ELF file or a System.map.
        By default those that the kernel has in itself.
    mirror:
        Address of the Debian mirror to download from; by default that of this host's own apt.
    deb:
        Debian packages (.deb files) to use instead of downloading them.
    keyring:
        File of keys that the mirror is signed with; by default Debian's.
    refresh:
        Ask the mirror for newer packages than those in the cache.
    """
    from doppel.cli import run as implementation
    from doppel.cli.downloads import package_source
    from doppel.cli.guest import GuestOptions

    return implementation.run(
        implementation.RunOptions(
            guest=GuestOptions(
                guest=guest,
                kernel=kernel,
                initrd=initrd,
                append=append,
                firmware=firmware,
                command=command,
                symbols=symbols,
                source=package_source(mirror, deb, keyring, refresh),
            ),
            memory=memory,
            harts=harts,
            disks=disk,
            networks=net,
            shares=share,
            clock=clock,
            compile=compile,
            timeout=timeout,
            stats=stats,
            perf_map=perf_map,
        )
    )


images = App(name="images", help="Guests made ready in the cache: list, fetch or remove them.")
app.command(images)


@images.default
@images.command(name="list")
def list_images() -> int:
    """Show the guests that doppel knows and what the cache holds."""
    from doppel.cli import images as implementation

    return implementation.show()


@images.command
def fetch(
    guest: str = "debian",
    /,
    *,
    mirror: Mirror = "",
    deb: Debs = (),
    keyring: Keyring = None,
    refresh: Refresh = False,
) -> int:
    """Download a guest and make it ready, without starting it.

    Parameters
    ----------
    guest:
        The guest's name.
    mirror:
        Address of the Debian mirror to download from; by default that of this host's own apt.
    deb:
        Debian packages (.deb files) to use instead of downloading them.
    keyring:
        File of keys that the mirror is signed with; by default Debian's.
    refresh:
        Ask the mirror for newer packages than those in the cache.
    """
    from doppel.cli import images as implementation

    return implementation.fetch(guest, mirror, deb, keyring, refresh)


@images.command
def remove(*names: str, everything: Annotated[bool, Parameter(name="--all")] = False) -> int:
    """Remove things from the cache; they are downloaded or made again when they are needed.

    Parameters
    ----------
    names:
        Names as shown by list, or the name of a guest for all of its versions.
    everything:
        Remove all that the cache holds.
    """
    from doppel.cli import images as implementation

    return implementation.remove(names, everything)


@app.command
def doctor() -> int:
    """Show what this host offers to doppel and what is missing."""
    from doppel.cli import doctor as implementation

    return implementation.doctor()


@app.command
def conformance(
    folder: Path,
    /,
    *,
    jobs: int = 0,
    compile: Compile = "hot",
    write: Path | None = None,
) -> int:
    """Run a folder of ELF test programs such as riscv-tests; status 1 if one fails.

    Parameters
    ----------
    folder:
        The folder. Files in it that are no ELF files are left out.
    jobs:
        How many to run at a time; 0: one for each of this host's processors.
    compile:
        hot (the default): compile what a program executes often; all: everything, before it is executed for
        the first time; off: nothing.
    write:
        File for the results as Markdown tables.
    """
    from doppel.cli import conformance as implementation

    return implementation.conformance(folder, jobs, compile, write)
