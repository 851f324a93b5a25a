"""Recordings in batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tasks.speech_recognition.data.recorded import RATE, a_processor, in_memory, tone, wav

from dolmen.tasks.speech_recognition.data.dataset import RecordingDataset, share_unknown, spellable_part
from dolmen.tasks.speech_recognition.data.decoded import decode_recordings
from dolmen.tasks.speech_recognition.data.set import Recording

TEXTS = ("ab", "Ba b!", "abba", "x")
SECONDS = (0.3, 0.1, 0.5, 0.2)


@pytest.fixture
def data() -> RecordingDataset:
    recordings = in_memory([wav(tone(i, s)) for i, s in enumerate(SECONDS)])
    items = tuple(Recording(f"{i}.wav", t, "train", f"s{i}") for i, t in enumerate(TEXTS))
    recordings = recordings.replace(items=items)
    processor = a_processor(recordings.replace(items=items[:3]))
    return RecordingDataset(recordings, decode_recordings(recordings, RATE), [2, 0, 3, 1], processor)


def test_batches_hold_the_recordings(data: RecordingDataset) -> None:
    assert data.processor.units == ("", "a", "b", "▁")
    assert (data.names, data.speakers) == (["2.wav", "0.wav", "3.wav", "1.wav"], ["s2", "s0", "s3", "s1"])
    assert data.texts == ["abba", "ab", "x", "Ba b!"]
    assert data.lengths.tolist() == [4000, 2400, 1600, 800]
    batch = data.batch(np.array([3, 0]))
    assert {k: v.dtype for k, v in batch.items()} == {
        "audio": torch.int16, "num_samples": torch.int64, "units": torch.int64, "num_units": torch.int64,
    }  # fmt: skip
    assert batch["num_samples"].tolist() == [800, 4000]
    assert batch["units"].tolist() == [[2, 1, 3, 2], [1, 2, 2, 1]]
    assert batch["num_units"].tolist() == [4, 4]
    for row, index in enumerate((3, 0)):
        n = int(batch["num_samples"][row])
        np.testing.assert_array_equal(batch["audio"][row, :n].numpy(), data.samples(index))
        assert not batch["audio"][row, n:].any()
    short = data.batch(np.array([1, 2]))
    assert short["units"].tolist() == [[1, 2], [-1, -1]]  # no unit stands for x
    assert short["num_units"].tolist() == [2, 0]


def test_subsets(data: RecordingDataset) -> None:
    few = data.subset(np.array([2, 0]))
    assert (few.names, few.texts, few.speakers) == (["3.wav", "2.wav"], ["x", "abba"], ["s3", "s2"])
    np.testing.assert_array_equal(few.digests, data.digests[[2, 0]])
    for name, values in few.batch(np.array([0, 1])).items():
        np.testing.assert_array_equal(values, data.batch(np.array([2, 0]))[name], err_msg=name)
    assert isinstance(data.audio.values, np.memmap)
    assert few.audio.values is data.audio.values  # no split of a set copies its recordings
    assert len(data.subset(np.zeros(0, np.int64))) == 0


def test_epochs(data: RecordingDataset) -> None:
    for epoch in (0, 1):
        batches = data.in_epoch(epoch, 2, seed=0)
        assert [len(b) for b in batches] == [2, 2]
        assert sorted(np.concatenate(batches).tolist()) == [0, 1, 2, 3]
        assert {tuple(sorted(b.tolist())) for b in batches} == {(0, 1), (2, 3)}  # of similar length
        again = data.subset(np.arange(4)).in_epoch(epoch, 2, seed=0)
        assert all((a == b).all() for a, b in zip(batches, again, strict=True))


@pytest.mark.parametrize(
    ("kind", "text", "known"),
    [("words", "ab zz BA", "ab ba"), ("characters", "abc bad", "ab ba"), ("bpe", "ac b", "a b")],
)
def test_the_part_of_a_text_that_can_be_spelled(kind: str, text: str, known: str) -> None:
    recordings = in_memory([b""]).replace(items=(Recording("1.wav", "ab ba ab ba ab bb aa"),))
    processor = a_processor(recordings, kind)
    assert spellable_part(text, processor) == known
    assert processor.encode_text(known)
    assert share_unknown([text.lower(), known], processor) == pytest.approx(
        sum(word not in known.split() for word in text.lower().split()) / len([*text.split(), *known.split()])
    )
