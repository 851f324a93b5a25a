"""What is done to transcripts."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.tasks.speech_recognition.processors.text_rules import TextRules, normalise

KEPT: dict[str, Any] = {"case": "keep", "punctuation": True, "tags": True}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  World!", "hello world"),
        ("  \t\n", ""),
        ("...!?", ""),
        ("a\u00a0b\u2003c\r\nd", "a b c d"),
        ("don't stop", "don't stop"),
        ("don\u2019t", "don't"),
        ("'quoted'", "quoted"),
        ("rock 'n' roll", "rock n roll"),
        ("co-pilot - on", "co-pilot on"),
        ("co\u2010pilot", "co-pilot"),
        ("1\u20132", "1-2"),
        ("3.14, 50%", "3 14 50"),
        ("cafe\u0301", "caf\u00e9"),
        ("STRASSE", "strasse"),
        ("stra\u00dfe", "stra\u00dfe"),
        ("\u0130", "i\u0307"),
        ("\u039f\u0394\u039f\u03a3", "\u03bf\u03b4\u03bf\u03c2"),
        ("\u041f\u0440\u0438\u0432\u0435\u0442!", "\u043f\u0440\u0438\u0432\u0435\u0442"),
        ("\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u4f60\u597d \u4e16\u754c"),
        ("\u0915\u094d\u200d\u0937 \u0924\u0947\u0964", "\u0915\u094d\u200d\u0937 \u0924\u0947"),
        ("a\u200bb co\u00adop \ufeffx", "ab coop x"),  # what can't be seen parts no word
        ("e\u200b\u0301", "\u00e9"),
        ("a\x00b\x07", "ab"),
        ("one [noise] two <unk>", "one two"),
        ("(laughter) yes (I think)", "yes i think"),
        ("a<unk>b", "a b"),
        ("(((", ""),
        ("x < y > z", "x y z"),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text, TextRules()) == expected


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (KEPT, "Don\u2019t <sp> Stra\u00dfe!"),
        ({**KEPT, "case": "upper"}, "DON\u2019T <SP> STRASSE!"),
        ({**KEPT, "tags": False}, "Don\u2019t Stra\u00dfe!"),
        ({**KEPT, "punctuation": False}, "Don't sp Stra\u00dfe"),
        ({}, "don't stra\u00dfe"),
    ],
)
def test_rules(rules: dict[str, Any], expected: str) -> None:
    assert normalise("Don\u2019t  <sp>\tStra\u00dfe!", TextRules(**rules)) == expected


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({}, "small letters, no punctuation, no <tags>, [tags] and (tags)"),
        ({"case": "upper", "punctuation": True, "tags": True}, "great letters, punctuation kept"),
        ({"case": "keep", "tags": True}, "letters as they are, no punctuation"),
    ],
)
def test_rules_as_a_person_reads_them(rules: dict[str, Any], sentence: str) -> None:
    assert TextRules(**rules).sentence() == sentence


ODD = st.text(st.sampled_from("aB\u0130\u03a3e'\u2019-()[]<> \t.\u0301\u200b\u200d\u00ad\ud800\x00\u1e9e\ufb01"))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), ODD), st.sampled_from(["lower", "upper", "keep"]), st.booleans(), st.booleans())
def test_what_is_normalised_stays(text: str, case: Any, punctuation: bool, tags: bool) -> None:
    rules = TextRules(case=case, punctuation=punctuation, tags=tags)
    once = normalise(text, rules)
    assert normalise(once, rules) == once
    assert once == " ".join(once.split())


@pytest.mark.parametrize("text", ["(" * 200_000, "<a" * 100_000, "<a>" * 70_000, "[a b " * 40_000, "a'" * 100_000])
def test_long_texts_take_linear_time(text: str) -> None:
    start = time.perf_counter()
    normalise(text, TextRules())
    assert time.perf_counter() - start < 3
