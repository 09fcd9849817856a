"""The encodings of F and D are those of GNU as."""

from __future__ import annotations

import pytest

from doppel.isa.rv_d import D
from doppel.isa.rv_f import F

# What GNU as 2.40 makes of each line.
ASSEMBLED = """
0085a507  flw fa0, 8(a1)
00c5a427  fsw fa2, 8(a1)
00c59553  fadd.s fa0, fa1, fa2, rtz
08c59553  fsub.s fa0, fa1, fa2, rtz
10c59553  fmul.s fa0, fa1, fa2, rtz
18c59553  fdiv.s fa0, fa1, fa2, rtz
58059553  fsqrt.s fa0, fa1, rtz
28c58553  fmin.s fa0, fa1, fa2
28c59553  fmax.s fa0, fa1, fa2
68c59543  fmadd.s fa0, fa1, fa2, fa3, rtz
68c59547  fmsub.s fa0, fa1, fa2, fa3, rtz
68c5954b  fnmsub.s fa0, fa1, fa2, fa3, rtz
68c5954f  fnmadd.s fa0, fa1, fa2, fa3, rtz
a0c5a553  feq.s a0, fa1, fa2
a0c59553  flt.s a0, fa1, fa2
a0c58553  fle.s a0, fa1, fa2
e0059553  fclass.s a0, fa1
20c58553  fsgnj.s fa0, fa1, fa2
20c59553  fsgnjn.s fa0, fa1, fa2
20c5a553  fsgnjx.s fa0, fa1, fa2
c0059553  fcvt.w.s a0, fa1, rtz
d0059553  fcvt.s.w fa0, a1, rtz
c0159553  fcvt.wu.s a0, fa1, rtz
d0159553  fcvt.s.wu fa0, a1, rtz
c0259553  fcvt.l.s a0, fa1, rtz
d0259553  fcvt.s.l fa0, a1, rtz
c0359553  fcvt.lu.s a0, fa1, rtz
d0359553  fcvt.s.lu fa0, a1, rtz
e0058553  fmv.x.w a0, fa1
f0058553  fmv.w.x fa0, a1
0085b507  fld fa0, 8(a1)
00c5b427  fsd fa2, 8(a1)
02c59553  fadd.d fa0, fa1, fa2, rtz
0ac59553  fsub.d fa0, fa1, fa2, rtz
12c59553  fmul.d fa0, fa1, fa2, rtz
1ac59553  fdiv.d fa0, fa1, fa2, rtz
5a059553  fsqrt.d fa0, fa1, rtz
2ac58553  fmin.d fa0, fa1, fa2
2ac59553  fmax.d fa0, fa1, fa2
6ac59543  fmadd.d fa0, fa1, fa2, fa3, rtz
6ac59547  fmsub.d fa0, fa1, fa2, fa3, rtz
6ac5954b  fnmsub.d fa0, fa1, fa2, fa3, rtz
6ac5954f  fnmadd.d fa0, fa1, fa2, fa3, rtz
a2c5a553  feq.d a0, fa1, fa2
a2c59553  flt.d a0, fa1, fa2
a2c58553  fle.d a0, fa1, fa2
e2059553  fclass.d a0, fa1
22c58553  fsgnj.d fa0, fa1, fa2
22c59553  fsgnjn.d fa0, fa1, fa2
22c5a553  fsgnjx.d fa0, fa1, fa2
c2059553  fcvt.w.d a0, fa1, rtz
d2058553  fcvt.d.w fa0, a1
c2159553  fcvt.wu.d a0, fa1, rtz
d2158553  fcvt.d.wu fa0, a1
c2259553  fcvt.l.d a0, fa1, rtz
d2259553  fcvt.d.l fa0, a1, rtz
c2359553  fcvt.lu.d a0, fa1, rtz
d2359553  fcvt.d.lu fa0, a1, rtz
40159553  fcvt.s.d fa0, fa1, rtz
42058553  fcvt.d.s fa0, fa1
e2058553  fmv.x.d a0, fa1
f2058553  fmv.d.x fa0, a1
"""
FIELDS = {"fd": 10, "fs1": 11, "fs2": 12, "fs3": 13, "rd": 10, "rs1": 11, "rs2": 12, "imm": 8}
LINES = [(int(word, 16), line) for word, line in (row.split("  ") for row in ASSEMBLED.split("\n") if row)]


@pytest.mark.parametrize(("word", "line"), LINES, ids=lambda value: str(value).split()[0])
def test_encoding(word: int, line: str) -> None:
    found = [i for i in F.instructions + D.instructions if i.matches(word)]
    assert [i.name for i in found] == [line.split()[0]]
    values = FIELDS | {"rm": 1 if line.endswith("rtz") else 0}
    assert found[0].pattern.encode({f.name: values[f.name] for f in found[0].pattern.fields}) == word


def test_every_instruction_has_a_line() -> None:
    assert [line.split()[0] for _, line in LINES] == [i.name for i in F.instructions + D.instructions]
