"""The D extension: double-precision floating point (unprivileged manual, chapter "D")."""

from __future__ import annotations

from doppel.isa.csr import require_fp
from doppel.isa.instruction import Extension
from doppel.isa.primitives import Hart, load, store
from doppel.isa.rv_f import box, define_format, modify_fp, rounding, unbox
from doppel.isa.softfloat import float_narrow, float_widen
from doppel.isa.words import Word

__all__ = ["D"]

D = Extension("D")


@D.instruction("imm[11:0] rs1 011 fd 0000111", syntax="fd, imm(rs1)")
def fld(h: Hart, rs1: Word, imm: Word) -> Word:
    require_fp(h)
    value = load(h, rs1 + imm, 8)
    modify_fp(h)
    return value


@D.instruction("imm[11:5] fs2 rs1 011 imm[4:0] 0100111", syntax="fs2, imm(rs1)")
def fsd(h: Hart, rs1: Word, fs2: Word, imm: Word) -> None:
    require_fp(h)
    store(h, rs1 + imm, 8, fs2)


define_format(D, "d", "01", 64)


@D.instruction("0100000 00001 fs1 rm fd 1010011")
def fcvt_s_d(h: Hart, fs1: Word, rm: Word) -> Word:
    mode = rounding(h, rm)
    modify_fp(h)
    return box(float_narrow(h, fs1, mode), 32)


# Exact, but a reserved rm is as illegal as anywhere (unprivileged manual, "Floating-Point Control and Status
# Register").
@D.instruction("0100001 00000 fs1 rm fd 1010011")
def fcvt_d_s(h: Hart, fs1: Word, rm: Word) -> Word:
    rounding(h, rm)
    modify_fp(h)
    return float_widen(h, unbox(fs1, 32))


@D.instruction("1110001 00000 fs1 000 rd 1010011")
def fmv_x_d(h: Hart, fs1: Word) -> Word:
    require_fp(h)
    return fs1


@D.instruction("1111001 00000 rs1 000 fd 1010011")
def fmv_d_x(h: Hart, rs1: Word) -> Word:
    modify_fp(h)
    return rs1
