"""What is not in the compiled language is refused, with a reason and the place."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from doppel.isa.words import Trap, Word, clz, low, sext, wide
from doppel.translate.emitter import LoweringError
from doppel.translate.program import Program
from doppel.translate.word_ops import WORD_OPERATIONS

LIMIT = 5
NAMES = {"not": "a number"}


def early_returns(a: Word) -> Word:
    if a == 0:
        return Word(1)
    return a


def several(a: Word, b: Word) -> tuple[Word, bool]:
    return a - b, a < b


def checks(h: Any, a: Word) -> None:
    h.mtval = a


def with_constant(a: Word, shift: int) -> Word:
    return a >> shift


def compile_time_constants(a: Word) -> Word:
    return with_constant(a, 3) + with_constant(a, 2 + 2 * 5) + with_constant(a, 12)


def a_for_loop(a: Word) -> Word:
    for _ in range(3):
        a = a + 1
    return a


def a_call_of_itself(a: Word) -> Word:
    return a_call_of_itself(a)


def a_keyword(a: Word) -> Word:
    return sext(a, bits=8)


def too_few_arguments(a: Word) -> Word:
    return early_returns() + a  # type: ignore[call-arg]


def too_many_arguments(a: Word) -> Word:
    return early_returns(a, a)  # type: ignore[call-arg]


def too_many_for_a_primitive(a: Word) -> Word:
    return clz(a, a)  # type: ignore[call-arg]


def spread_arguments(a: Word) -> Word:
    return early_returns(*NAMES)  # type: ignore[arg-type]


def an_unknown_name(a: Word) -> Word:
    return a + nobody_knows  # type: ignore[name-defined]  # noqa: F821


def not_a_constant(a: Word) -> Word:
    return a + NAMES  # type: ignore[operator]


def a_string(a: Word) -> Word:
    return a + "1"  # type: ignore[operator]


def a_float(a: Word) -> Word:
    return a + 1.5  # type: ignore[operator]


def a_list(a: Word) -> Word:
    return [a][0]


def true_division(a: Word) -> Word:
    return a / 2  # type: ignore[return-value]


def a_power(a: Word) -> Word:
    return a**2


def a_chain(a: Word) -> bool:
    return 1 < a < 5


def an_identity(a: Word) -> bool:
    return a is None


def a_membership(a: Word) -> bool:
    return a in NAMES  # type: ignore[operator]


def a_negative_comparison(a: Word) -> bool:
    return a > -1


def too_far_a_shift(a: Word) -> Word:
    return a << 64


def a_negative_shift(a: Word) -> Word:
    return a >> -1


def an_else_of_a_loop(a: Word) -> Word:
    while a != 0:
        a = a - 1
    else:
        a = a + 1
    return a


def another_exception(a: Word) -> Word:
    raise ValueError(a, a)


def half_a_trap(a: Word) -> Word:
    raise Trap(a)


def an_assertion(a: Word) -> Word:
    assert a == 1
    return a


def a_handler(a: Word) -> Word:
    try:
        return a
    except Trap:
        return a + 1


def a_lambda(a: Word) -> Word:
    return (lambda x: x)(a)


def a_comprehension(a: Word) -> Word:
    return sum(a for _ in ())


def two_types(a: Word) -> Word:
    x = wide(a)
    x = a
    return low(x)


def a_word_for_a_bool(a: Word) -> bool:
    x = a == 1
    x = a
    return x


def arms_of_two_widths(a: Word) -> Word:
    return low(wide(a) if a == 1 else a)


def a_word_as_a_condition_value(a: Word) -> Word:
    return a and a + 1


def a_word_as_a_bool(a: Word) -> bool:
    return a & 2  # type: ignore[return-value]


def a_missing_return(a: Word) -> Word:  # type: ignore[return]
    if a == 1:
        return a


def a_return_without_value(a: Word) -> Word:
    if a == 1:
        return a
    return None  # type: ignore[return-value]


def returns_of_two_lengths(a: Word) -> tuple[Word, Word]:
    if a == 1:
        return a  # type: ignore[return-value]
    return a, a


def unpacking_of_too_few(a: Word) -> Word:
    x, y, z = several(a, a)  # type: ignore[misc]
    return x + y + z


def unpacking_of_a_word(a: Word) -> Word:
    x, y = a  # type: ignore[misc]
    return x + y


def no_such_field(h: Any, a: Word) -> Word:
    return h.hyperspace + a


def no_such_field_to_write(h: Any, a: Word) -> None:
    h.hyperspace = a


def no_array(h: Any, a: Word) -> Word:
    return h.mepc[a]


def beyond_an_array(h: Any, a: Word) -> Word:
    return h.x[33] + a


def an_attribute_of_a_word(a: Word) -> Word:
    return a.real


def an_item_of_a_word(a: Word) -> Word:
    a[0] = 1  # type: ignore[index]
    return a


def nothing_as_a_value(h: Any, a: Word) -> Word:
    return checks(h, a) + a  # type: ignore[operator]


def a_default(a: Word, b: Word = LIMIT) -> Word:  # type: ignore[assignment]
    return a + b


def a_rest(*a: Word) -> Word:
    return a[0]


REFUSED = {
    a_for_loop: "not in the language",
    a_call_of_itself: "calls itself",
    a_keyword: "arguments are given by place",
    too_few_arguments: "0 arguments",
    too_many_arguments: "2 arguments",
    too_many_for_a_primitive: "2 arguments",
    spread_arguments: "arguments are given by place",
    an_unknown_name: "unknown name 'nobody_knows'",
    not_a_constant: "'NAMES' is not a constant",
    a_string: "not in the language",
    a_float: "not in the language",
    a_list: "not in the language",
    true_division: "the operator is not in the language",
    a_power: "the operator is not in the language",
    a_chain: "not in the language",
    an_identity: "not in the language",
    a_membership: "not a constant|not in the language",
    a_negative_comparison: "never less than zero",
    too_far_a_shift: "a shift by 64 bits",
    a_negative_shift: "a shift by -1 bits",
    an_else_of_a_loop: "no else",
    another_exception: "only Trap",
    half_a_trap: "not in the language",
    an_assertion: "not in the language",
    a_handler: "not in the language",
    a_lambda: "is not a name",
    a_comprehension: "2 arguments|not in the language|cannot be called",
    two_types: "'x' cannot be both a Wide and a Word",
    a_word_for_a_bool: "'x' cannot be both a bool and a Word",
    arms_of_two_widths: "one width",
    a_word_as_a_condition_value: "is no condition",
    a_word_as_a_bool: "returns a Word as a bool",
    a_missing_return: "not on every path",
    a_return_without_value: "no value here",
    returns_of_two_lengths: "returns 2 values here and 1 elsewhere",
    unpacking_of_too_few: "2 values for 3 names",
    unpacking_of_a_word: "only a call or a tuple",
    no_such_field: "the hart has no 'hyperspace'",
    no_such_field_to_write: "the hart has no 'hyperspace'",
    no_array: "'mepc' is no array",
    beyond_an_array: "'x' has 33 elements",
    an_attribute_of_a_word: "unknown name 'a'",
    an_item_of_a_word: "cannot assign to that",
    nothing_as_a_value: "gives no value",
    a_default: "defaults for them",
    a_rest: "other than plain parameters",
}


@pytest.mark.parametrize("function", REFUSED, ids=lambda f: f.__name__)
def test_refuses_with_a_reason(function: Callable[..., Any]) -> None:
    with pytest.raises(LoweringError, match=REFUSED[function]) as caught:
        Program(dict(WORD_OPERATIONS)).function(function)
    # Where: the function, and the line if it is about one.
    assert function.__name__ in str(caught.value)


def test_only_functions_can_be_compiled() -> None:
    with pytest.raises(LoweringError, match="not a plain function"):
        Program(dict(WORD_OPERATIONS)).function(SimpleNamespace)


def test_a_function_is_compiled_once_for_each_set_of_constants() -> None:
    program = Program(dict(WORD_OPERATIONS))
    first = program.function(compile_time_constants)
    assert program.function(compile_time_constants) is first
    names = [text.split("@")[1].split("(")[0] for text in program.texts]
    assert sum(name.startswith("test_lower_refuses.with_constant") for name in names) == 2


def test_a_failure_leaves_nothing_in_progress() -> None:
    program = Program(dict(WORD_OPERATIONS))
    for _ in range(2):
        with pytest.raises(LoweringError, match="0 arguments"):
            program.function(too_few_arguments)
