"""Readers of recordings: every layout, every container, every sentence, every file accounted for."""

from __future__ import annotations

import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tasks.speech_recognition.data.recorded import tone, wav, write

from dolmen.tasks.speech_recognition.data.read import Recordings, read_recordings
from dolmen.tasks.speech_recognition.data.set import Finder, split_named
from dolmen.types import UserError

W = b"RIFF"  # readers look at names only
Rows = list[tuple[str, str, str, str]]


def rows(recordings: Recordings) -> Rows:
    return [(r.name, r.text, r.split, r.speaker) for r in recordings.items]


def skipped(recordings: Recordings) -> dict[str, str]:
    return {s.name: s.reason for s in recordings.skipped}


PLAIN: Rows = [("1.wav", "hello there", "", ""), ("sub/2.wav", "bye", "", "")]
FULL: Rows = [("1.wav", "hello there", "train", "ann"), ("sub/2.wav", "bye", "val", "bob")]
LISTS: list[tuple[str, str, str, Rows]] = [
    ("csv", "l.csv", "path,text\n1.wav,hello there\nsub/2.wav,bye\n", PLAIN),
    ("full", "l.csv", "path,text,speaker,split\n1.wav,hello there,ann,train\nsub/2.wav,bye,bob,dev\n", FULL),
    ("other names", "l.csv", "Split,client_id,Sentence,audio\ntrain,ann,hello there,1.wav\nvalid,bob,bye,sub/2.wav\n",
     FULL),
    ("deepspeech", "l.csv", "wav_filename,wav_filesize,transcript\n1.wav,0,hello there\nsub/2.wav,0,bye\n", PLAIN),
    ("nemo", "l.jsonl", '{"audio_filepath": "1.wav", "duration": 1.5, "text": "hello there"}\n'
     '{"audio_filepath": "sub/2.wav", "text": "bye"}\n', PLAIN),
    ("semicolons", "l.csv", "path;text\n1.wav;hello there\nsub/2.wav;bye\n", PLAIN),
    ("tsv", "l.tsv", "path\ttext\n1.wav\thello there\nsub/2.wav\tbye\n", PLAIN),
    ("quotes in tsv", "l.tsv", 'path\ttext\n1.wav\t"hello there"\nsub/2.wav\t"bye\n',
     [PLAIN[0], ("sub/2.wav", '"bye', "", "")]),
    ("windows", "l.csv", "\ufeffpath,text\r\n1.wav,hello  there\r\nsub\\2.wav,bye\r\n", PLAIN),
    ("absolute paths of another machine", "l.csv", "path,text\n/data/x/1.wav,hello there\nC:\\sub\\2.wav,bye\n", PLAIN),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "wanted"), [c[1:] for c in LISTS], ids=[c[0] for c in LISTS])
@pytest.mark.parametrize("whole", [False, True], ids=["the list", "its folder"])
def test_lists(tmp_path: Path, name: str, content: str, wanted: Rows, whole: bool) -> None:
    write(tmp_path, {"1.wav": W, "sub/2.wav": W, name: content})
    recordings = read_recordings(str(tmp_path if whole else tmp_path / name))
    assert rows(recordings) == wanted
    assert (recordings.layout, recordings.read_from, recordings.num_files) == ("a list", (name,), 2)


def test_bad_rows_are_skipped_with_their_reasons(tmp_path: Path) -> None:
    content = "path,text,split\n1.wav,a,train\n1.wav,a,train\n2.wav, ,train\n3.wav,a,train\n,a,train\n4.wav,a\n"
    content += "5.wav,a,later\n"
    write(tmp_path, {**{f"{i}.wav": W for i in (1, 2, 4, 5, 6)}, "l.csv": content})
    wanted = {
        "1.wav": "listed again in l.csv:3", "2.wav": "no text in l.csv:4", "3.wav": "listed but not there",
        "l.csv:6": "the row has no path", "l.csv:7": "the row has 2 cells, expected 3 as in the header",
        "5.wav": "the split 'later' in l.csv:8 is none of train, val and test",
    }  # fmt: skip
    assert skipped(read_recordings(str(tmp_path / "l.csv"))) == wanted
    recordings = read_recordings(str(tmp_path))
    assert skipped(recordings) == {**wanted, "4.wav": "not in the list", "6.wav": "not in the list"}
    assert recordings.num_files == len(recordings.items) + len(recordings.skipped)


def test_a_list_may_name_what_is_beside_its_folder(tmp_path: Path) -> None:
    write(tmp_path, {"wav/1.wav": W, "lists/l.csv": f"path,text\n../wav/1.wav,a\n{tmp_path}/wav/1.wav,b\n"})
    recordings = read_recordings(str(tmp_path / "lists/l.csv"))
    assert [(n, t) for n, t, _, _ in rows(recordings)] == [("../wav/1.wav", "a"), (f"{tmp_path}/wav/1.wav", "b")]
    content = dict(recordings.source.read([r.name for r in recordings.items]))
    assert set(content.values()) == {W}
    assert rows(read_recordings(str(tmp_path))) == [("wav/1.wav", "a", "", "")]


COMMON_VOICE = "client_id\tpath\tsentence\tup_votes\n"
TREES: list[tuple[str, dict[str, bytes | str], str, Rows, dict[str, str]]] = [
    (
        "lists for splits",
        {"train.csv": "path,text\na/1.wav,x\n", "dev.csv": "path,text\na/2.wav,y\n", "a/1.wav": W, "a/2.wav": W,
         "other.csv": "a,b\n", "test.csv": "path,text\n"},
        "a list for each split",
        [("a/2.wav", "y", "val", ""), ("a/1.wav", "x", "train", "")],
        {"other.csv": "not a recording", "test.csv": "not a recording"},
    ),
    (
        "LibriSpeech",
        {
            "LibriSpeech/train-clean-100/19/198/19-198.trans.txt":
                "19-198-0000 HELLO THERE\n19-198-0001 BYE\n19-198-0002 GONE\n",
            "LibriSpeech/train-clean-100/19/198/19-198-0000.flac": W,
            "LibriSpeech/train-clean-100/19/198/19-198-0001.flac": W,
            "LibriSpeech/dev-other/20/205/20-205.trans.txt": "20-205-0000 YES\n",
            "LibriSpeech/dev-other/20/205/20-205-0000.flac": W,
            "LibriSpeech/dev-other/20/205/20-205-0009.flac": W,
            "LibriSpeech/README.TXT": "about",
        },
        "LibriSpeech",
        [
            ("LibriSpeech/dev-other/20/205/20-205-0000.flac", "YES", "val", "20"),
            ("LibriSpeech/train-clean-100/19/198/19-198-0000.flac", "HELLO THERE", "train", "19"),
            ("LibriSpeech/train-clean-100/19/198/19-198-0001.flac", "BYE", "train", "19"),
        ],
        {
            "LibriSpeech/train-clean-100/19/198/19-198-0002":
                "listed in LibriSpeech/train-clean-100/19/198/19-198.trans.txt but not there",
            "LibriSpeech/dev-other/20/205/20-205-0009.flac": "no text for it",
            "LibriSpeech/README.TXT": "not a recording",
        },
    ),
    (
        "Common Voice",
        {
            "cv/de/train.tsv": COMMON_VOICE + 'aa\t1.mp3\tSie sagte: "Ja\t2\n',
            "cv/de/dev.tsv": COMMON_VOICE + "bb\t2.mp3\tNein.\t2\n",
            "cv/de/test.tsv": COMMON_VOICE + "cc\t3.mp3\tDoch!\t2\n",
            "cv/de/validated.tsv": COMMON_VOICE + "cc\t4.mp3\tNur hier\t2\n",
            "cv/de/other.tsv": COMMON_VOICE, **{f"cv/de/clips/{i}.mp3": W for i in range(1, 5)},
        },
        "Common Voice",
        [
            ("cv/de/clips/2.mp3", "Nein.", "val", "bb"), ("cv/de/clips/3.mp3", "Doch!", "test", "cc"),
            ("cv/de/clips/1.mp3", 'Sie sagte: "Ja', "train", "aa"),
        ],
        {
            "cv/de/validated.tsv": "a list that is not used beside the others", "cv/de/other.tsv": "not a recording",
            "cv/de/clips/4.mp3": "in none of the lists",
        },
    ),
    (
        "Common Voice, validated only",
        {"validated.tsv": COMMON_VOICE + "aa\t1.mp3\tJa\t2\n", "invalidated.tsv": COMMON_VOICE, "clips/1.mp3": W},
        "Common Voice",
        [("clips/1.mp3", "Ja", "", "aa")],
        {"invalidated.tsv": "not a recording"},
    ),
    (
        "Kaldi",
        {
            "data/train/text": "u1 HELLO  THERE\nu2\tBYE\nu9 GONE\n",
            "data/train/wav.scp": "u1 /corpus/wav/1.wav\nu2 wav/2.wav\nu3 sph2pipe x.sph |\nu4 wav/4.wav\n",
            "data/train/utt2spk": "u1 ann\nu2 bob\n", "data/test/text": "v1 YES\n",
            "data/test/wav.scp": "v1 wav/5.wav\n",
            **{f"wav/{i}.wav": W for i in (1, 2, 5, 6)},
        },
        "Kaldi",
        [("wav/5.wav", "YES", "test", ""), ("wav/1.wav", "HELLO THERE", "train", "ann"),
         ("wav/2.wav", "BYE", "train", "bob")],
        {
            "u3": "wav.scp names a command, which is not run: write its output to a file",
            "wav/4.wav": "listed in wav.scp but not there", "u9": "in data/train/text but not in wav.scp",
            "wav/6.wav": "no text for it",
        },
    ),
    (
        "a folder for each word",
        {"yes/ab_nohash_0.wav": W, "yes/cd_nohash_0.wav": W, "turn_on/ab_nohash_1.wav": W, "turn_on/1.wav": W,
         "_background_noise_/tap.wav": W, "stray.wav": W, "README.md": "x"},
        "a folder for each word",
        [("turn_on/1.wav", "turn on", "", ""), ("turn_on/ab_nohash_1.wav", "turn on", "", "ab"),
         ("yes/ab_nohash_0.wav", "yes", "", "ab"), ("yes/cd_nohash_0.wav", "yes", "", "cd")],
        {"_background_noise_/tap.wav": "_background_noise_ is not a word", "stray.wav": "not in the folder of a word",
         "README.md": "not a recording"},
    ),
    (
        "Speech Commands with its lists",
        {"yes/a_nohash_0.wav": W, "yes/b_nohash_0.wav": W, "no/a_nohash_0.wav": W, "no/c_nohash_0.wav": W,
         "validation_list.txt": "no/c_nohash_0.wav\n", "testing_list.txt": "yes/b_nohash_0.wav\n"},
        "a folder for each word",
        [("no/a_nohash_0.wav", "no", "train", "a"), ("no/c_nohash_0.wav", "no", "val", "c"),
         ("yes/a_nohash_0.wav", "yes", "train", "a"), ("yes/b_nohash_0.wav", "yes", "test", "b")],
        {},
    ),
    (
        "words below splits",
        {"set/train/yes/1.wav": W, "set/train/no/1.wav": W, "set/test/yes/2.wav": W, "set/extra/no/3.wav": W},
        "a folder for each word",
        [("set/test/yes/2.wav", "yes", "test", ""), ("set/train/no/1.wav", "no", "train", ""),
         ("set/train/yes/1.wav", "yes", "train", "")],
        {"set/extra/no/3.wav": "outside train, val and test"},
    ),
    (
        "FSDD",
        {"recordings/0_ann_4.wav": W, "recordings/7_bob_5.wav": W, "recordings/7_bob_12.wav": W, "recordings/x.wav": W},
        "Free Spoken Digit Dataset",
        [("recordings/0_ann_4.wav", "zero", "test", "ann"), ("recordings/7_bob_5.wav", "seven", "", "bob"),
         ("recordings/7_bob_12.wav", "seven", "", "bob")],
        {"recordings/x.wav": "its name is another"},
    ),
    (
        "yesno",
        {"w/0_1_1_0_0_0_0_1.wav": W, "w/1_1.wav": W},
        "yesno",
        [("w/0_1_1_0_0_0_0_1.wav", "no yes yes no no no no yes", "", "yesno"), ("w/1_1.wav", "yes yes", "", "yesno")],
        {},
    ),
    (
        "pairs",
        {"train/1.wav": W, "train/1.txt": "\ufeffHello\nthere\n", "test/2.wav": W, "test/2.txt": "bye", "test/3.wav": W,
         "test/4.wav": W, "test/4.txt": " \n"},
        "a text for each recording",
        [("test/2.wav", "bye", "test", ""), ("train/1.wav", "Hello there", "train", "")],
        {"test/3.wav": "no .txt beside it", "test/4.wav": "no text in test/4.txt"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "layout", "wanted", "lost"), [t[1:] for t in TREES], ids=[t[0] for t in TREES])
@pytest.mark.parametrize("container", ["folder", ".zip", ".tar", ".tar.xz", "archive in a folder"])
def test_layouts(
    tmp_path: Path, tree: dict[str, bytes | str], layout: str, wanted: Rows, lost: dict[str, str], container: str
) -> None:
    folder = write(tmp_path / "data", tree)
    data = folder
    if container == ".zip":
        data = tmp_path / "data.zip"
        with zipfile.ZipFile(data, "w") as archive:
            for name in reversed(tree):
                archive.write(folder / name, name)
    elif container != "folder":
        suffix = container if container.startswith(".") else ".tar.xz"
        data = tmp_path / "outer" / f"data{suffix}"
        data.parent.mkdir()
        with tarfile.open(data, "w:xz" if suffix.endswith("xz") else "w:") as archive:  # type: ignore[call-overload]
            for name in reversed(tree):
                archive.add(folder / name, name)
        data = data if container.startswith(".") else data.parent
    recordings = read_recordings(str(data))
    assert recordings.layout == layout
    assert sorted(rows(recordings)) == sorted(wanted)
    assert skipped(recordings) == lost
    used = {r.name for r in recordings.items} | set(recordings.read_from) | set(lost)
    assert used >= set(tree)
    assert all(content == W for _, content in recordings.source.read([r.name for r in recordings.items]))


def test_texts_beside_an_archive_of_the_sound(tmp_path: Path) -> None:
    write(tmp_path, {"in/WAVE/1.WAV": W, "in/text": "x", "set/text": "u1\tHELLO\n", "set/wav.scp": "u1\tWAVE/1.WAV\n"})
    with tarfile.open(tmp_path / "set/wavs.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "in/WAVE", "WAVE")
        archive.add(tmp_path / "in/text", "text")
    recordings = read_recordings(str(tmp_path / "set"))
    assert rows(recordings) == [("WAVE/1.WAV", "HELLO", "", "")]
    assert skipped(recordings) == {"wavs.tar.xz/text": "a file of this name is there already"}
    assert dict(recordings.source.read(["WAVE/1.WAV"])) == {"WAVE/1.WAV": W}


WRONG: list[tuple[str, dict[str, bytes | str], str, str]] = [
    ("one recording", {"1.wav": W}, "1.wav", r"1\.wav is one recording, expected a \.csv"),
    ("no data", {"1.pdf": W}, "1.pdf", r"1\.pdf is no data set that Dolmen knows, expected a \.csv"),
    ("missing", {"list.csv": ""}, "lists.csv", r"^there is no .*lists\.csv; did you mean .*list\.csv\?$"),
    ("columns", {"l.csv": "a,b\n1,2\n"}, "l.csv",
     r"l\.csv has the columns a, b, expected path and text, and if you like speaker and split; name the columns so$"),
    ("empty list", {"l.csv": ""}, "l.csv", r"l\.csv has the columns \(none\), expected path and text"),
    ("nothing there", {"l.csv": "path,text\n1.wav,a\n"}, "l.csv",
     r"holds no recording that is there and has a text \(the first is 1\.wav: listed but not there\); expected a row "),
    ("encoding", {"l.csv": b"path,text\n1.wav,caf\xe9\n"}, "l.csv",
     r"l\.csv line 2 is not text in utf-8 \(byte 0xe9\); say what it is in, e\.g\. --encoding latin-1, or save it as "),
    ("nothing said", {"d/1.wav": W, "d/2.wav": W}, "d",
     r"d holds files \(2 \.wav\) and nothing that says what is said in which recording, expected a \.csv, \.tsv or "),
    ("other list", {"d/1.wav": W, "d/l.csv": "name,words\na,b\n"}, "d",
     r"d/l\.csv has the columns name, words, expected path and text, and if you like speaker and split; name the"),
    ("other lists", {"d/1.wav": W, "d/l.csv": "name,words\n", "d/m.csv": "a,b\n"}, "d",
     r"; or give the list: .*d/l\.csv$"),
    ("speakers are no words", {"d/SPK01/1.wav": W, "d/SPK02/1.wav": W}, "d", r"nothing that says what is said"),
    ("empty", {"d/x/.hidden": ""}, "d/x", r"d/x holds no files and nothing that says"),
    ("no row", {"l.csv": "path,text\n"}, "l.csv", r"l\.csv holds no row; expected a header with path and text, and if"),
    ("no row to read", {"l.csv": "path,text\n1.wav\n"}, "l.csv",
     r"l\.csv holds no row that can be read \(line 2 has 1 cell, expected 2 as in the header\); expected a header "),
    ("several lists", {"d/b.csv": "path,text\n1.wav,a\n", "d/c.csv": "path,text\n1.wav,a\n", "d/1.wav": W}, "d",
     r"holds several lists \(b\.csv, c\.csv\) and none of their names says train; give one of them, or call them "),
    ("segments", {"d/text": "", "d/wav.scp": "", "d/segments": ""}, "d",
     r"has segments, which cuts long recordings into utterances, and Dolmen takes a file for each; write them as "),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "data", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_what_is_no_set_is_refused_in_a_sentence(
    tmp_path: Path, tree: dict[str, bytes | str], data: str, message: str
) -> None:
    write(tmp_path, tree)
    with pytest.raises(UserError, match=message) as caught:
        read_recordings(str(tmp_path / data))
    assert "\n" not in str(caught.value)


def test_encodings(tmp_path: Path) -> None:
    write(tmp_path, {"1.wav": W, "1.txt": "caf\xe9".encode("latin-1")})
    assert read_recordings(str(tmp_path), encoding="latin-1").items[0].text == "café"
    with pytest.raises(UserError, match=r"there is no encoding 'utf-9'; give one such as utf-8 or latin-1"):
        read_recordings(str(tmp_path), encoding="utf-9")


@pytest.mark.parametrize(
    ("name", "split"),
    [("train", "train"), ("dev-clean", "val"), ("cv-valid-test", "test"), ("my_training_set", "train"), ("detest", "")],
)
def test_splits_in_names(name: str, split: str) -> None:
    assert split_named(name) == split


def test_relative_paths_are_not_guessed() -> None:
    finder = Finder({"1.wav", "a/2.wav"}.__contains__, ("a", ""))
    cases = {"2.wav": "a/2.wav", "a/2.wav": "a/2.wav", "b/1.wav": None, "/b/1.wav": "1.wav", "../1.wav": "1.wav",
             "../../1.wav": None, "": None, "/": None}  # fmt: skip
    assert {path: finder.find(path) for path in cases} == cases


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
FILES = st.sampled_from(["1.wav", "2.wav", "../x.wav", "/1.wav", "nowhere.wav", ""])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(FILES | CELLS, CELLS, CELLS)), st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_any_rows_are_read_or_accounted_for(tmp_path: Path, table: list[tuple[str, str, str]], suffix: str) -> None:
    comma = "\t" if suffix == ".tsv" else ","
    content = "\n".join(comma.join(row) for row in [("path", "text", "speaker"), *table])
    write(tmp_path, {"1.wav": W, "2.wav": W})
    (tmp_path / f"l{suffix}").write_text(content, encoding="utf-8", newline="")
    for data in (tmp_path, tmp_path / f"l{suffix}"):
        try:
            recordings = read_recordings(str(data))
        except UserError:
            continue  # nothing of it can be used
        assert all(r.text and r.name for r in recordings.items)
        assert len({r.name for r in recordings.items}) == len(recordings.items)
        assert {f.name for f in recordings.source.files} <= (
            {r.name for r in recordings.items} | {s.name for s in recordings.skipped} | set(recordings.read_from)
        )
    (tmp_path / f"l{suffix}").unlink()


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("data", "layout", "num", "speakers", "splits"),
    [
        ("fsdd", "Free Spoken Digit Dataset", 2700, 6, {"": 2700}),
        ("yesno", "yesno", 31, 1, {"": 31}),
        ("speech-commands-subset", "a folder for each word", 400, 150, {"": 400}),
        ("speech-commands-subset/wavs.tar.xz", "a folder for each word", 400, 150, {"": 400}),
        ("speechocean762-subset", "Kaldi", 60, 41, {"": 60}),
        ("smoke-utterances/pocketsphinx/librivox", "a text for each recording", 5, 0, {"": 5}),
        ("smoke-utterances/deepspeech/russian_sample_data/ru.csv", "a list", 1, 0, {"": 1}),
    ],
)
def test_real_sets(shared_data: Path, data: str, layout: str, num: int, speakers: int, splits: dict[str, int]) -> None:
    recordings = read_recordings(str(shared_data / "speech" / data))
    assert (recordings.layout, len(recordings)) == (layout, num)
    assert len({r.speaker for r in recordings.items} - {""}) == speakers
    assert Counter(r.split for r in recordings.items) == splits
    assert all(
        isinstance(c, bytes) and c[:4] == b"RIFF"
        for _, c in recordings.source.read([r.name for r in recordings.items[:5]])
    )


def test_names_in_archives_are_those_of_the_files(tmp_path: Path) -> None:
    """Sound that is really there comes out of an archive in a folder."""
    content = wav(tone())
    write(tmp_path, {"in/yes/1.wav": content, "in/no/1.wav": content})
    with zipfile.ZipFile(tmp_path / "words.zip", "w") as archive:
        for word in ("yes", "no"):
            archive.write(tmp_path / f"in/{word}/1.wav", f"{word}/1.wav")
    for name in ("yes", "no"):
        (tmp_path / f"in/{name}/1.wav").unlink()
    recordings = read_recordings(str(tmp_path))
    assert dict(recordings.source.read([r.name for r in recordings.items])) == {
        "no/1.wav": content,
        "yes/1.wav": content,
    }
