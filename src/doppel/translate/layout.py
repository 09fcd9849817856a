"""The layout in memory of a hart and of a machine, as native code and ctypes both see it.

A hart's structure begins with its architectural state (:data:`doppel.isa.state.ARCHITECTURAL_STATE`); behind
it come the engine's own fields. Offsets for LLVM and the ctypes view derive from the same tables.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from doppel.isa.state import ARCHITECTURAL_STATE

__all__ = [
    "CODE_PAGE",
    "CONTEXTS",
    "HART",
    "ITLB",
    "MACHINE",
    "MAX_HARTS",
    "MAX_HELPERS",
    "MAX_REGION",
    "NEW_PAGES",
    "RECORD",
    "SAMPLES",
    "SECOND_TLB",
    "TLB",
    "TLB_GROUPS",
    "CodePage",
    "Field",
    "InstructionTlb",
    "Layout",
    "Record",
    "SecondTlb",
    "Tlb",
]

MAX_HARTS = 64
# Functions that compiled regions may call, samples kept of one hart, and new code pages kept of a machine.
MAX_HELPERS = 128
SAMPLES = 1024
# Instructions of one region.
MAX_REGION = 400
NEW_PAGES = 8192
# Address spaces of which a hart keeps translations: values of satp.
CONTEXTS = 8
# The entries of a TLB array are emptied in this many groups of neighbours, those that are not empty already.
TLB_GROUPS = 64
_SIZES = {"u64": 8, "u32": 4, "u8": 1, "ptr": 8}
_CTYPES = {"u64": ctypes.c_uint64, "u32": ctypes.c_uint32, "u8": ctypes.c_uint8, "ptr": ctypes.c_uint64}


@dataclass(frozen=True)
class Tlb:
    """Software TLB of loads and stores: direct-mapped, one array for each way to see memory.

    The ways are bare M, and of each of several address spaces what U sees, S, and S with SUM.

    An entry is the tag that a load, and the tag that a store, must match, and the host address of
    guest-virtual address zero as this page would have it (host page minus virtual page).
    """

    entries: int = 1024
    views: int = 3
    entry_size: int = 32
    load_tag: int = 0
    store_tag: int = 8
    bias: int = 16

    @property
    def view_size(self) -> int:
        """Bytes of one array."""
        return self.entries * self.entry_size

    @property
    def arrays(self) -> int:
        """Number of arrays: first that of M, then ``views`` for each address space."""
        return 1 + CONTEXTS * self.views


@dataclass(frozen=True)
class SecondTlb:
    """Behind the arrays for loads and stores: one larger direct-mapped array for all address spaces.

    An entry's key is the virtual page with the number of the array that it belongs to in the low bits; it
    counts only as long as the address space is of the same generation. Then come the host address of
    guest-virtual address zero, as in :class:`Tlb`, and the guest-physical page with what is permitted.
    """

    entries: int = 8192
    entry_size: int = 32
    key: int = 0
    generation: int = 8
    bias: int = 16
    physical: int = 24
    may_load: int = 1
    may_store: int = 2

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return self.entries * self.entry_size


@dataclass(frozen=True)
class InstructionTlb:
    """Virtual page to decoded page, one array for M, and for U and S in each of several address spaces."""

    entries: int = 1024
    views: int = 2
    entry_size: int = 16
    tag: int = 0
    records: int = 8

    @property
    def view_size(self) -> int:
        """Bytes of one array."""
        return self.entries * self.entry_size

    @property
    def arrays(self) -> int:
        """Number of arrays: first that of M, then ``views`` for each address space."""
        return 1 + CONTEXTS * self.views


@dataclass(frozen=True)
class Record:
    """One decoded instruction: the handler's address and its operands; one for every two bytes of a page."""

    size: int = 16
    handler: int = 0
    imm: int = 8
    rd: int = 12
    rs1: int = 13
    rs2: int = 14
    rs3: int = 15
    # A record's distance from the page's first is the instruction's offset in the page, times 8.
    per_byte: int = 8


@dataclass(frozen=True)
class CodePage:
    """A decoded page: 2048 records, one more that leads on to the next page, then where it came from."""

    records: int = 2049
    host: int = 2049 * 16
    guest_page: int = 2049 * 16 + 8
    stores: int = 2049 * 16 + 16
    epoch: int = 2049 * 16 + 24
    ready: int = 2049 * 16 + 32
    # Not 0: compiled regions cover instructions of this page, so a store to them drops the page as a whole.
    regions: int = 2049 * 16 + 40
    size: int = 2049 * 16 + 48


TLB = Tlb()
SECOND_TLB = SecondTlb()
ITLB = InstructionTlb()
RECORD = Record()
CODE_PAGE = CodePage()


@dataclass(frozen=True)
class Field:
    """``count`` elements of ``type`` (0: not an array) at ``offset`` bytes."""

    name: str
    type: str
    count: int
    offset: int
    doc: str

    @property
    def element_size(self) -> int:
        """Bytes of one element."""
        return _SIZES[self.type]

    @property
    def size(self) -> int:
        """Bytes of the whole field."""
        return self.element_size * max(1, self.count)


class Layout:
    """Fields in order, naturally aligned; fields of 64 bytes and more start a cache line."""

    def __init__(self, name: str, rows: list[tuple[str, str, int, str]]) -> None:
        self.name = name
        self.fields: dict[str, Field] = {}
        offset = 0
        for field_name, kind, count, doc in rows:
            size = _SIZES[kind] * max(1, count)
            align = 64 if size >= 64 else _SIZES[kind]
            offset = (offset + align - 1) // align * align
            self.fields[field_name] = Field(field_name, kind, count, offset, doc)
            offset += size
        self.size = (offset + 63) // 64 * 64

    def __getitem__(self, name: str) -> Field:
        return self.fields[name]

    def structure(self) -> type[ctypes.Structure]:
        """A ctypes structure of this layout."""
        members: list[tuple[str, object]] = []
        end = 0
        for field in self.fields.values():
            if field.offset > end:
                members.append((f"_pad{end}", ctypes.c_uint8 * (field.offset - end)))
            kind = _CTYPES[field.type]
            members.append((field.name, kind * field.count if field.count else kind))
            end = field.offset + field.size
        if self.size > end:
            members.append((f"_pad{end}", ctypes.c_uint8 * (self.size - end)))
        return type(self.name, (ctypes.Structure,), {"_fields_": members})


_ENGINE_STATE: list[tuple[str, str, int, str]] = [
    ("machine", "ptr", 0, "the machine's structure"),
    (
        "limit",
        "u64",
        0,
        "a block ends in attend() when the budget has come down to this: 0, or the maximum to get attention",
    ),
    ("tlb_view", "ptr", 0, "the TLB array for the current data mode"),
    ("itlb_view", "ptr", 0, "the instruction TLB array for the current mode"),
    ("pc_delta", "u64", 0, "the pc of a record is its address / 8 plus this"),
    ("budget", "u64", 0, "instructions left in this slice, when spilled from its register"),
    ("slice", "u64", 0, "instructions the slice began with"),
    ("run_end", "u64", 0, "spent at which this run ends"),
    ("spent", "u64", 0, "budget spent in finished slices since reset: instructions retired and traps taken"),
    ("traps", "u64", 0, "traps taken since reset; each costs one of the budget without retiring anything"),
    ("soft_end", "u64", 0, "1: the run may end at the first block end behind its budget"),
    ("requests", "u64", 0, "what other threads ask of this hart: bits of Request"),
    ("acknowledged", "u64", 0, "counts the requests served, for those who wait"),
    ("flush_seen", "u64", 0, "flush_epoch as it was before this hart's last flush on request"),
    ("running", "u64", 0, "1 while native code runs this hart"),
    ("waiting", "u64", 0, "1 from wfi until an enabled interrupt is pending"),
    ("wake", "u32", 0, "futex word: changed to wake the hart from its wait"),
    ("pending_cause", "u64", 0, "the trap or exit that is being raised"),
    ("pending_value", "u64", 0, "its value"),
    ("exit_reason", "u64", 0, "why native code returned: a value of ExitReason"),
    ("exit_address", "u64", 0, "guest-physical address of the exit"),
    ("exit_size", "u64", 0, "bytes of the access"),
    ("exit_value", "u64", 0, "value stored, or the trap's cause"),
    ("exit_access", "u64", 0, "kind of access"),
    ("reply", "u64", 0, "0: none; 1: the device answered reply_value; 2: access fault"),
    ("reply_value", "u64", 0, "what the device read gave"),
    ("data_physical", "u64", 0, "guest-physical address of the last slow access"),
    ("scratch_bits", "u64", 0, "the instruction in the scratch records"),
    (
        "context",
        "u64",
        0,
        "number of the address space that satp names, among those with cached translations",
    ),
    ("contexts", "u64", 0, "address spaces with cached translations"),
    ("context_clock", "u64", 0, "counts the changes of address space"),
    ("context_satp", "u64", CONTEXTS, "satp of each; 0 for Bare"),
    ("context_used", "u64", CONTEXTS, "context_clock when each was last left"),
    ("generation", "u64", CONTEXTS, "of each, counts how often it was emptied, together with the others"),
    ("generations", "u64", 0, "the last generation given to an address space"),
    (
        "superpages",
        "u64",
        CONTEXTS,
        "of each, bit n: superpages are cached in gigabyte n modulo 32 of the lower half; from 32 on: upper",
    ),
    ("tlb_array", "u64", 0, "number of the array at tlb_view"),
    ("itlb_array", "u64", 0, "number of the array at itlb_view"),
    ("tlb_filled", "u64", TLB.arrays, "of each array, the groups of entries that are not all empty"),
    ("itlb_filled", "u64", ITLB.arrays, "the same of the instruction TLB"),
    ("pauses", "u64", 0, "PAUSE instructions executed, on a machine of several harts"),
    ("tlb_misses", "u64", 0, "loads and stores that took the slow path"),
    ("walks", "u64", 0, "those that the second TLB did not know either"),
    ("itlb_misses", "u64", 0, "jumps that took the slow path"),
    ("decoded", "u64", 0, "instructions decoded"),
    ("interrupts", "u64", 0, "interrupts taken"),
    (
        "scratch",
        "u64",
        8,
        "three records and room to align them: an instruction executed outside a decoded page",
    ),
    ("timespec", "u64", 2, "buffer for the host's clock"),
    ("icount_skew", "u64", 0, "ticks that an instruction-count clock jumped ahead while waiting"),
    (
        "stepping",
        "u64",
        0,
        "1: every instruction is executed outside the decoded pages, with a look at the budget",
    ),
    ("host_fp", "u64", 0, "the host's floating-point control outside native code, kept while inside"),
    ("fp_scratch", "u64", 0, "buffer for the host's floating-point status"),
    ("compile_refused", "u64", 0, "guest-physical address of the last exit to compile"),
    ("helpers", "ptr", MAX_HELPERS, "what compiled regions call, by place"),
    ("sample_count", "u64", 0, "samples taken since reset"),
    ("samples", "u64", SAMPLES, "guest-physical addresses at which slices ended, the last ones of them"),
    ("itlb", "u8", ITLB.arrays * ITLB.view_size, "instruction TLB"),
    ("tlb", "u8", TLB.arrays * TLB.view_size, "TLB"),
    ("second_tlb", "u8", SECOND_TLB.size, "second TLB"),
]

HART = Layout(
    "HartState",
    [(f.name, f.type, f.count, f.doc) for f in ARCHITECTURAL_STATE] + _ENGINE_STATE,
)
# The handlers address x registers from the hart pointer itself.
assert HART["x"].offset == 0

MACHINE = Layout(
    "MachineState",
    [
        ("arena", "ptr", 0, "host address of the frame arena"),
        ("fmap", "ptr", 0, "f-map: one 64-bit entry a guest page"),
        ("fmap_pages", "u64", 0, "guest pages the f-map covers"),
        ("code_table", "ptr", 0, "decoded page of each guest page, or null"),
        ("code_arena", "ptr", 0, "memory for decoded pages"),
        ("code_capacity", "u64", 0, "decoded pages that fit"),
        ("code_used", "u64", 0, "decoded pages handed out"),
        ("code_free", "ptr", 0, "decoded pages given back, linked through their first word (one hart only)"),
        (
            "code_lock",
            "u64",
            1,
            "1 while somebody makes or drops decoded pages, or decodes one of several harts",
        ),
        ("flush_epoch", "u64", 0, "counts pages that became decoded ones, when there are several harts"),
        ("hart_count", "u64", 0, "harts"),
        ("supervisor_calls", "u64", 0, "1: traps to M mode leave native code (the impure interface)"),
        ("clock_kind", "u64", 0, "0: host clock; 1: instruction count"),
        ("clock_offset", "u64", 0, "host clock: nanoseconds to subtract"),
        ("instructions_per_tick", "u64", 0, "instruction-count clock: instructions a timebase tick"),
        ("slice_length", "u64", 0, "instructions between looks at the clock"),
        ("compile_all", "u64", 0, "1: an instruction that is met for the first time leaves to be compiled"),
        ("new_page_count", "u64", 0, "guest pages that became decoded ones"),
        ("new_pages", "u64", NEW_PAGES, "their numbers, the last ones of them"),
        ("clock_gettime", "ptr", 0, "libc's function"),
        ("syscall", "ptr", 0, "libc's function"),
        ("harts", "ptr", MAX_HARTS, "the harts' structures"),
    ],
)
