"""N-grams: probabilities that sum to 1, by hand, and files in the ARPA format."""

from __future__ import annotations

import gzip
import itertools
import math
from pathlib import Path

import pytest

from dolmen.tasks.speech_recognition.processors.ngrams import NGrams
from dolmen.types import UserError

TEXT = ["the cat sat", "the cat ran", "a dog sat on the cat", "the dog", "on", "the cat sat on a mat", "  "]

# A bigram model as SRILM writes it: log10, tabs, no weight where nothing follows, -99 for what can't be.
SRILM = """

\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-0.60206\t</s>
-99\t<s>\t-0.30103
-0.60206\t<unk>
-0.60206\tone\t-0.1760913
-0.60206\ttwo

\\2-grams:
-0.30103\t<s> one
-0.4771213\tone two
-0.1760913\ttwo </s>

\\end\\
"""

# The same as KenLM writes it: a weight everywhere, and <unk> first.
KENLM = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-0.60206\t<unk>\t0
0\t<s>\t-0.30103
-0.60206\t</s>\t0
-0.60206\tone\t-0.1760913
-0.60206\ttwo\t0

\\2-grams:
-0.30103\t<s> one
-0.4771213\tone two
-0.1760913\ttwo </s>

\\end\\
"""


def log_of(model: NGrams, sentence: str) -> float:
    state, total = model.start(), 0.0
    for word in sentence.split():
        state, log = model.step(state, word)
        total += log
    return total + model.end(state)


@pytest.mark.parametrize("min_count", [1, 2])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("text", [TEXT, TEXT * 30, ["a"], [" ".join("abcdefgabcabab"[i:]) for i in range(14)]])
def test_what_may_follow_has_probability_1(text: list[str], order: int, min_count: int) -> None:
    model = NGrams.train(text, order, min_count)
    words = [*model.words, "never-seen"]
    for history in itertools.chain.from_iterable(itertools.product(words[:5], repeat=n) for n in range(order)):
        state = model.start()
        for word in history:
            state, _ = model.step(state, word)
        total = sum(math.exp(model.step(state, word)[1]) for word in words) + math.exp(model.end(state))
        assert total == pytest.approx(1, abs=1e-6)


def test_kneser_ney_by_hand() -> None:
    """Counts too few for an estimate take the discounts 0.5, 1 and 1.5."""
    model = NGrams.train(["a b", "a c", "a b"], 2)
    # After how many different words: a 1, b 1, c 1, </s> 2; 5 in all. The unknown one and </s> make five words.
    freed = (3 * 0.5 + 1.0) / 5
    one = {word: (count - (1.0 if count == 2 else 0.5)) / 5 + freed / 5 for word, count in {"b": 1, "</s>": 2}.items()}
    # After a: b twice, c once.
    kept, left = (2 - 1.0) / 3, (1.0 + 0.5) / 3
    assert math.exp(model.step(("a",), "b")[1]) == pytest.approx(kept + left * one["b"])
    assert math.exp(model.end(("a",))) == pytest.approx(left * one["</s>"])
    assert math.exp(model.step(("a",), "x")[1]) == pytest.approx(left * freed / 5)


def test_what_was_often_said_is_likely() -> None:
    model = NGrams.train(TEXT, 3)
    assert log_of(model, "the cat sat") > log_of(model, "the sat cat")
    assert model.perplexity(["the cat sat"]) < model.perplexity(["mat mat mat"])
    assert model.perplexity(["the cat sat"]) == pytest.approx(math.exp(-log_of(model, "the cat sat") / 4))


def test_a_word_that_is_never_seen_is_the_unknown_one() -> None:
    model = NGrams.train(TEXT, 2, min_count=2)
    assert "cat" in model
    assert not any(word in model for word in ("mat", "xyz", "<s>", "</s>", "<unk>"))
    assert model.step(("the",), "mat") == model.step(("the",), "xyz")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_what_is_written_reads_the_same(order: int, tmp_path: Path) -> None:
    model = NGrams.train(TEXT * 3, order)
    (tmp_path / "plain.arpa").write_text(model.to_arpa(), encoding="utf-8")
    (tmp_path / "packed.arpa.gz").write_bytes(gzip.compress(model.to_arpa().encode()))
    (tmp_path / "windows.arpa").write_bytes(model.to_arpa().replace("\n", "\r\n").encode())
    copies = [NGrams.read_arpa(path) for path in tmp_path.iterdir()] + [NGrams.read_arpa(model.to_arpa())]
    assert len(copies) == 4
    for copy in copies:
        assert (copy.order, sorted(copy.words)) == (order, sorted(model.words))
        for sentence in [*TEXT, "mat xyz the", "dog dog"]:
            assert log_of(copy, sentence) == pytest.approx(log_of(model, sentence), abs=1e-5)
        assert copy.to_arpa() == model.to_arpa()


@pytest.mark.parametrize("text", [SRILM, KENLM, SRILM.replace("<unk>", "<UNK>"), SRILM.replace("\t", "  ")])
def test_files_of_others(text: str) -> None:
    model = NGrams.read_arpa(text)
    assert (model.order, sorted(model.words)) == (2, ["one", "two"])
    assert log_of(model, "one two") == pytest.approx(math.log(1 / 2 * 1 / 3 * 2 / 3), abs=1e-5)
    # <s> has half of itself for what never followed it, one two thirds.
    assert log_of(model, "two one") == pytest.approx(math.log(1 / 2 / 4 * 1 / 4 * 2 / 3 / 4), abs=1e-5)
    assert log_of(model, "other") == pytest.approx(math.log(1 / 2 / 4 * 1 / 4), abs=1e-5)


def test_without_an_unknown_word_there_is_none() -> None:
    text = SRILM.replace("ngram 1=5", "ngram 1=4").replace("-0.60206\t<unk>\n", "")
    assert log_of(NGrams.read_arpa(text), "other") < -200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("\\data\\", "\\date\\"), r"the text has no \\data\\, as ARPA files have; is it complete\?"),
        (("\\end\\", ""), r"the text has no \\end\\"),
        (("ngram 2=3", "ngram 2=4"), "line 19 of the ARPA file is damaged: it has 3 2-grams before it where 4"),
        (("ngram 1=5", "ngram 1=6"), "line 14 of the ARPA file is damaged: it has 5 1-grams before it where 6 were"),
        (("ngram 2=3", "ngram 3=3"), "line 5 of the ARPA file is damaged: it has 'ngram 3=3'"),
        (("\\2-grams:", "\\3-grams:"), r"line 14 of the ARPA file is damaged: it has .*3-grams"),
        (("-0.4771213\tone two", "-0.4771213\tone"), "line 16 .* where a log, 2 words and perhaps another log were"),
        (("-0.4771213", "much"), "line 16 .* where a log, 2 words and perhaps another log were expected"),
        (("-0.4771213", "nan"), "line 16 .* whose logs are none of probabilities"),
        (("-0.4771213", "3.5"), "line 16 .* whose logs are none of probabilities"),
    ],
)
def test_damage_is_named_by_its_line(change: tuple[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NGrams.read_arpa(SRILM.replace(*change))


@pytest.mark.parametrize(
    "content",
    [
        b"\\data\\\n\xff\xfe",
        gzip.compress(b"\\data\\", mtime=0)[:-6],
        b"\x1f\x8b\x00\x00",
        gzip.compress(b"\\data\\" * 9, mtime=0)[:10] + b"\xff" * 20,
    ],
)
def test_files_that_are_no_text(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.arpa is no ARPA file in UTF-8"):
        NGrams.read_arpa(path)


def test_what_nothing_can_be_learned_from() -> None:
    with pytest.raises(UserError, match="can't be trained without words; give sentences, one in each line"):
        NGrams.train(["", "  ", "<s> </s>"])
    with pytest.raises(UserError, match="order and min_count must be 1 or more, not 0 and 1"):
        NGrams.train(TEXT, 0)
    with pytest.raises(UserError, match="perplexity needs one sentence or more; no word was found"):
        NGrams.train(TEXT).perplexity([" "])
