"""The A extension: Zalrsc and Zaamo (unprivileged manual, chapter "A").

Every access here is sequentially consistent, which satisfies any setting of ``aq`` and ``rl``.
"""

from __future__ import annotations

from doppel.isa.instruction import Extension
from doppel.isa.primitives import Hart, amo, load_reserved, store_conditional
from doppel.isa.words import Word, sext

__all__ = ["A"]

A = Extension("A")

LR = "rd, (rs1)"
AMO = "rd, rs2, (rs1)"


@A.instruction("00010 aq rl 00000 rs1 010 rd 0101111", syntax=LR)
def lr_w(h: Hart, rs1: Word) -> Word:
    return sext(load_reserved(h, rs1, 4), 32)


@A.instruction("00011 aq rl rs2 rs1 010 rd 0101111", syntax=AMO)
def sc_w(h: Hart, rs1: Word, rs2: Word) -> Word:
    return store_conditional(h, rs1, 4, rs2)


@A.instruction("00001 aq rl rs2 rs1 010 rd 0101111", syntax=AMO)
def amoswap_w(h: Hart, rs1: Word, rs2: Word) -> Word:
    return sext(amo(h, rs1, 4, "swap", rs2), 32)


@A.instruction("00000 aq rl rs2 rs1 010 rd 0101111", syntax=AMO)
def amoadd_w(h: Hart, rs1: Word, rs2: Word) -> Word:
    return sext(amo(h, rs1, 4, "add", rs2), 32)


@A.instruction("00100 aq rl rs2 rs1 010 rd 0101111", syntax=AMO)
def amoxor_w(h: Hart, rs1: Word, rs2: Word) -> Word:
    return sext(amo(h, rs1, 4, "xor", rs2), 32)


@A.instruction("01100 aq rl rs2 rs1 010 rd 0101111", syntax=AMO)
def amoand_w(h: Hart, rs1: Word, rs2: Word) -> Word:
    return sext(amo(h, rs1, 4, "and", rs2), 32)


@A.instruction("01000 aq rl rs2 rs1 010 rd 0101111", syntax=AMO)
def amoor_w(h: Hart, rs1: Word, rs2: Word) -> Word:
    return sext(amo(h, rs1, 4, "or", rs2), 32)


@A.instruction("10000 aq rl rs2 rs1 010 rd 0101111", syntax=AMO)
def amomin_w(h: Hart, rs1: Word, rs2: Word) -> Word:
    return sext(amo(h, rs1, 4, "min", rs2), 32)


@A.instruction("10100 aq rl rs2 rs1 010 rd 0101111", syntax=AMO)
def amomax_w(h: Hart, rs1: Word, rs2: Word) -> Word:
    return sext(amo(h, rs1, 4, "max", rs2), 32)


@A.instruction("11000 aq rl rs2 rs1 010 rd 0101111", syntax=AMO)
def amominu_w(h: Hart, rs1: Word, rs2: Word) -> Word:
    return sext(amo(h, rs1, 4, "minu", rs2), 32)


@A.instruction("11100 aq rl rs2 rs1 010 rd 0101111", syntax=AMO)
def amomaxu_w(h: Hart, rs1: Word, rs2: Word) -> Word:
    return sext(amo(h, rs1, 4, "maxu", rs2), 32)


@A.instruction("00010 aq rl 00000 rs1 011 rd 0101111", syntax=LR)
def lr_d(h: Hart, rs1: Word) -> Word:
    return load_reserved(h, rs1, 8)


@A.instruction("00011 aq rl rs2 rs1 011 rd 0101111", syntax=AMO)
def sc_d(h: Hart, rs1: Word, rs2: Word) -> Word:
    return store_conditional(h, rs1, 8, rs2)


@A.instruction("00001 aq rl rs2 rs1 011 rd 0101111", syntax=AMO)
def amoswap_d(h: Hart, rs1: Word, rs2: Word) -> Word:
    return amo(h, rs1, 8, "swap", rs2)


@A.instruction("00000 aq rl rs2 rs1 011 rd 0101111", syntax=AMO)
def amoadd_d(h: Hart, rs1: Word, rs2: Word) -> Word:
    return amo(h, rs1, 8, "add", rs2)


@A.instruction("00100 aq rl rs2 rs1 011 rd 0101111", syntax=AMO)
def amoxor_d(h: Hart, rs1: Word, rs2: Word) -> Word:
    return amo(h, rs1, 8, "xor", rs2)


@A.instruction("01100 aq rl rs2 rs1 011 rd 0101111", syntax=AMO)
def amoand_d(h: Hart, rs1: Word, rs2: Word) -> Word:
    return amo(h, rs1, 8, "and", rs2)


@A.instruction("01000 aq rl rs2 rs1 011 rd 0101111", syntax=AMO)
def amoor_d(h: Hart, rs1: Word, rs2: Word) -> Word:
    return amo(h, rs1, 8, "or", rs2)


@A.instruction("10000 aq rl rs2 rs1 011 rd 0101111", syntax=AMO)
def amomin_d(h: Hart, rs1: Word, rs2: Word) -> Word:
    return amo(h, rs1, 8, "min", rs2)


@A.instruction("10100 aq rl rs2 rs1 011 rd 0101111", syntax=AMO)
def amomax_d(h: Hart, rs1: Word, rs2: Word) -> Word:
    return amo(h, rs1, 8, "max", rs2)


@A.instruction("11000 aq rl rs2 rs1 011 rd 0101111", syntax=AMO)
def amominu_d(h: Hart, rs1: Word, rs2: Word) -> Word:
    return amo(h, rs1, 8, "minu", rs2)


@A.instruction("11100 aq rl rs2 rs1 011 rd 0101111", syntax=AMO)
def amomaxu_d(h: Hart, rs1: Word, rs2: Word) -> Word:
    return amo(h, rs1, 8, "maxu", rs2)
