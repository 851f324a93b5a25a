"""Tagged sentences from files, and what check finds in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dolmen
from dolmen.tasks.token_classification.data.dataset import TaggedDataset
from dolmen.tasks.token_classification.data.read import canonical, find_scheme, read_tagged
from dolmen.tasks.token_classification.data.vectors import read_vectors
from dolmen.tasks.token_classification.processor import TagProcessor
from dolmen.types import UserError

CONLL = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
"""
CONLLU = """# sent_id = 1
# text = They don't.
1\tThey\tthey\tPRON\tPRP\tCase=Nom\t2\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\tSpaceAfter=No
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_
4\t.\t.\tPUNCT\t.\t_\t2\tpunct\t_\t_

"""


def read(path: Path, content: str, column: str | None = None, word_column: int | None = None) -> list[tuple[str, str]]:
    path.write_text(content)
    tagged = read_tagged(str(path), encoding="utf-8", column=column, word_column=word_column)
    return [(" ".join(s.words), " ".join(s.tags)) for sentences in tagged.splits.values() for s in sentences]


def test_columns(tmp_path: Path) -> None:
    assert read(tmp_path / "a.conll", CONLL) == [
        ("EU rejects German", "I-ORG O I-MISC"), ("Peter Blackburn", "I-PER I-PER"),
    ]  # fmt: skip
    assert read(tmp_path / "a.conll", CONLL, "2")[0] == ("EU rejects German", "NNP VBZ JJ")
    swapped = "O\tEU\nB-PER\tAnna\n"
    assert read(tmp_path / "b.tsv", swapped, "1", 2) == [("EU Anna", "O B-PER")]
    assert read(tmp_path / "c.conll", "# domain=x\n#\tO\na\tB-X\n") == [("# a", "O B-X")]


@pytest.mark.parametrize(
    ("column", "tags"), [(None, "PRON AUX PART PUNCT"), ("xpos", "PRP VBP RB ."), ("feats", "Case=Nom _ _ _")]
)
def test_conllu(tmp_path: Path, column: str | None, tags: str) -> None:
    assert read(tmp_path / "a.conllu", CONLLU, column) == [("They do n't .", tags)]


def span(start: int, end: int, label: str) -> dict[str, object]:
    return {"start": start, "end": end, "label": label}


def test_jsonl(tmp_path: Path) -> None:
    records = [
        {"text": "Anna lives in New York.", "spans": [span(14, 22, "LOC"), span(0, 4, "PER")]},
        {"text": "In Rome-Süd", "entities": [[3, 7, "LOC"]]},
        {"words": ["a", "b"], "tags": ["O", "S-X"]},
    ]  # fmt: skip
    assert read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records))) == [
        ("Anna lives in New York .", "S-PER O O B-LOC E-LOC O"), ("In Rome - Süd", "O S-LOC O O"), ("a b", "O S-X"),
    ]  # fmt: skip


WRONG = {
    "ragged.conll": ("a O\nb\n", r"ragged\.conll:2 has 1 column, the lines before it have 2"),
    "one.conll": ("a\nb\n", r"one\.conll:1 has 1 column; every line needs the same number"),
    "empty.conll": ("\n\n", "holds no sentence"),
    "hole.tsv": ("a\tO\n\tO\n", r"hole\.tsv:2 has an empty word or tag"),
    "broken.jsonl": ('{"text": "a"}\n{', r"broken\.jsonl:2 can't be read"),
    "outside.jsonl": (
        '{"text": "abc", "spans": [{"start": 1, "end": 9, "label": "X"}]}',
        "not inside its 3 characters",
    ),
    "over.jsonl": ('{"text": "a b", "spans": [[0, 3, "X"], [2, 3, "Y"]]}', r"spans that overlap \(X and Y\)"),
    "uneven.jsonl": ('{"words": ["a"], "tags": []}', "has 1 words and 0 tags"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_can_not_be_read_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    content, message = WRONG[name]
    with pytest.raises(UserError, match=message):
        read(tmp_path / name, content)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    for column, message in (("5", "columns 1 to 4"), ("upos", "is of CoNLL-U"), ("x", "--column x")):
        with pytest.raises(UserError, match=message):
            read(tmp_path / "a.conll", CONLL, column)


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("O B-X I-X", "IOB2"),
        ("O B-X E-X S-X", "BIOES"),
        ("B-X M-X E-X", "BMES"),
        ("U-X O", "BILOU"),
        ("NN VB", ""),
        ("O O", ""),
    ],
)
def test_schemes(tags: str, scheme: str) -> None:
    assert find_scheme(iter(tags.split())) == scheme


def test_iob1_is_known_and_converted(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(CONLL)
    tagged = read_tagged(str(tmp_path / "a.conll"), encoding="utf-8", column=None, word_column=None)
    assert (tagged.kind, tagged.scheme) == ("spans", "IOB1")
    assert [canonical(s, "spans") for s in tagged.splits[""]] == [["S-ORG", "O", "S-MISC"], ["B-PER", "E-PER"]]


def test_places_in_the_segmentation_are_taken_off(tmp_path: Path) -> None:
    sentences = read(tmp_path / "a.conll", "科0\tO\n技1\tB-X\n全0\tO\n" * 10)
    assert sentences[0][0].startswith("科 技 全")


# ---- check


def sentences(num: int, start: int = 0) -> str:
    return "".join(f"word{i} O\nAnna{i} B-PER\nof O\nRome B-LOC\nspeaks O\n\n" for i in range(start, start + num))


def codes(folder: Path, **texts: str) -> dict[str, str]:
    for name, text in texts.items():
        (folder / f"{name}.conll").write_text(text)
    report = dolmen.check("token-classification", folder)
    assert report.num_files == report.num_used + len(report.skipped)
    return {f.code: f.level for f in report.findings}


def test_check_finds_what_is_wrong(tmp_path: Path) -> None:
    long = "x O\n" * 1500 + "\n"
    cases = {
        "clean": ({"train": sentences(40), "valid": sentences(9, 90)}, {}),
        "leak": ({"train": sentences(40), "valid": sentences(9)}, {"sentences-across-splits": "leak"}),
        "scheme": ({"train": sentences(40) + "a B-PER\nb E-PER\nc I-LOC\n", "valid": sentences(9, 90)},
                   {"tags-out-of-scheme": "warning"}),
        "several": ({"train": sentences(40) + "the O\nRome B-ORG\n", "valid": sentences(9, 90)},
                    {"one-string-several-tags": "info"}),
        "unseen": ({"train": sentences(40), "valid": sentences(9, 90) + "a B-NEW\n"},
                   {"tags-never-trained": "warning"}),
        "long": ({"train": sentences(40) + long, "valid": sentences(9, 90)}, {"long-sentence": "warning"}),
    }  # fmt: skip
    for name, (texts, wanted) in cases.items():
        (tmp_path / name).mkdir()
        assert codes(tmp_path / name, **texts) == wanted, name


@pytest.mark.parametrize(
    ("text", "message"),
    [(sentences(3), "too few to learn from"), ("".join(f"a{i} O\nb O\n\n" for i in range(40)), "have the same tag")],
)
def test_too_little_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.conll").write_text(text)
    with pytest.raises(UserError, match=message):
        dolmen.train("token-classification", tmp_path / "a.conll", tmp_path / "run", epochs=1)


# ---- batches and vectors


def test_batches_hold_the_sentences(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("a O\nb S-X\n\nc O\n\nd O\ne O\nf S-X\n")
    tagged = read_tagged(str(tmp_path / "a.conll"), encoding="utf-8", column=None, word_column=None)
    processor = TagProcessor(kind="spans", words=("", *"abcdef"), characters="\0abcdef", labels=("O", "S-X"))
    sentences = tagged.splits[""]
    data = TaggedDataset(sentences, [s.tags for s in sentences], processor)
    batch = data.batch(np.array([2, 1]))
    assert batch["lengths"].tolist() == [3, 1]
    assert batch["words"].tolist() == [[4, 5, 6], [3, 0, 0]]
    assert batch["tags"].tolist() == [[0, 0, 1], [0, 0, 0]]
    few = data.subset(np.array([2, 0]))
    np.testing.assert_array_equal(few.digests, data.digests[[2, 0]])
    assert few.batch(np.array([1]))["words"].tolist() == [[1, 2]]
    seen = np.concatenate(data.in_epoch(3, 2, seed=0))
    assert sorted(seen.tolist()) == [0, 1, 2]


def test_vectors_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text("3 2\nrome 1 2\nanna 3 4\nother 5 6\n")
    vectors = read_vectors(str(path), {"rome", "anna", "x"})
    assert {k: v.tolist() for k, v in vectors.items()} == {"rome": [1.0, 2.0], "anna": [3.0, 4.0]}
    for content, message in (
        ("a 1 2\nb 1\n", "v.txt:2 has 1 numbers"), ("zz 1 2\n", "for none of the words"),
        ("a 1 x\n", "v.txt:1 can't be read"),
    ):  # fmt: skip
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            read_vectors(str(path), {"a"})
