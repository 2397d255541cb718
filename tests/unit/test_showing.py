"""Foreign text, as people get to see it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain_events.showing import one_line, printable

ANY_TEXT = st.text(alphabet=st.characters(codec=None), max_size=60)  # lone surrogates too


def test_what_is_printable_stays_as_it_is() -> None:
    for text in ("", "größe", "a b", "日本", "\U0001f600", "\\n"):
        assert printable(text) == text
        assert one_line(text, 10) == text


def test_all_else_is_shown_as_its_escape() -> None:
    assert printable("a\n\r\t\0\x1b\x7f\x9b\u2028\u202e\u2066\ud800") == (
        r"a\n\r\t\x00\x1b\x7f\x9b\u2028\u202e\u2066\ud800"
    )
    assert printable("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"


def test_white_space_of_any_kind_is_one_space() -> None:
    assert one_line("  a\n b\t\u2028c\r\n", 100) == "a b c"
    assert one_line(" \n ", 100) == ""


def test_a_long_text_is_cut_and_its_end_marked() -> None:
    assert one_line("x" * 20, 20) == "x" * 20
    assert one_line("x" * 21, 20) == "x" * 16 + " ..."
    assert one_line("x" * 1_000_000, 20) == "x" * 16 + " ..."
    assert one_line("\0" * 20, 20) == r"\x00\x00\x00\x00 ..."


@given(ANY_TEXT, st.integers(4, 80))
def test_a_line_is_one_printable_and_no_longer_than_asked_for(text: str, longest: int) -> None:
    line = one_line(text, longest)
    assert line.isprintable()
    assert len(line) <= longest
    assert printable(text).isprintable()
    line.encode()
