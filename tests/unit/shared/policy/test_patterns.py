"""Patterns say what regular expressions say, in linear time, and nothing else is accepted."""

import re
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.policy import patterns

_ATOMS = st.sampled_from(["a", "b", "0", "-", r"\d", r"\w", r"\.", ".", "[ab]", "[^a-c]", r"[\d_]"])
_COUNTS = st.sampled_from(["", "", "?", "*", "+", "{2}", "{0,2}", "{1,}"])


def _grow(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.builds("({}){}".format, parts, _COUNTS)
    return st.one_of(
        group, st.builds("{}{}".format, parts, parts), st.builds("{}|{}".format, parts, parts)
    )


@given(
    st.recursive(st.builds("{}{}".format, _ATOMS, _COUNTS), _grow, max_leaves=8),
    st.lists(st.text("ab0-.c_", max_size=9), min_size=1, max_size=8),
)
@settings(max_examples=300, deadline=None)
def test_agrees_with_regular_expressions(pattern, texts):
    for text in texts:
        expected = re.compile(pattern, re.ASCII).fullmatch(text) is not None
        assert patterns.matches(pattern, text) is expected


@given(st.text("ab()|?*+[]{},12-^.\\dw$", max_size=12))
@settings(max_examples=500, deadline=None)
def test_accepts_only_what_is_a_regular_expression_too(pattern):
    try:
        patterns.matches(pattern, "a")
    except ValueError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        re.compile(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)a",
        r"(a)\1",
        "a**",
        "a{2}{3}",
        "(a",
        "a)",
        "[a",
        "[]",
        "[z-a]",
        "a{300}",
        "a{2,1}",
        "*a",
        "((a{100}){100}){100}",
        "(((((){99}){99}){99}){99}){99}",
        "(" * 20,
        r"\q",
        "a\\",
    ],
)
def test_refuses_what_is_unsafe_or_malformed(pattern):
    with pytest.raises(ValueError, match=r"[a-z]"):
        patterns.matches(pattern, "a")


def test_catastrophic_patterns_take_linear_time():
    begin = time.process_time()
    for pattern in ("(a*)*c", "(a|a)*c", "(a?){50}(a?){50}a{50}c", "(.*a){20}c", ".*.*.*.*.*c"):
        assert not patterns.matches(pattern, "a" * 2_000)
    assert time.process_time() - begin < 5  # with backtracking: longer than the universe exists
