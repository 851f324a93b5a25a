"""How well speech was written down: word and character error rates with their mistakes, counted by jiwer."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dolmen.metrics.bootstrap import resampled_sums
from dolmen.metrics.classification import reliability, wilson
from dolmen.metrics.shared import shared
from dolmen.types import Evaluation, Metric

Kind = Literal["words", "characters"]
Counts = NDArray[np.int64]
Pair = tuple[str, str]
Interval = tuple[float, float]

HITS, SUBSTITUTIONS, DELETIONS, INSERTIONS = range(4)
METRICS = {
    "wer": Metric(
        "WER", "words taken for others, left out or put in, for each word that was said", percent=True, better="min"
    ),
    "cer": Metric("CER", "the same of characters, with the spaces between words", percent=True, better="min"),
    "exact": Metric("exact", "share of utterances without a wrong word", percent=True),
    "substitutions": Metric(
        "substitutions", "words taken for others, for each word that was said", percent=True, better="min"
    ),
    "deletions": Metric("deletions", "words left out, for each word that was said", percent=True, better="min"),
    "insertions": Metric(
        "insertions", "words put in that were not said, for each word that was", percent=True, better="min"
    ),
    **shared("loss"),
    "oov": Metric(
        "OOV", "share of the words said that the model can't write: training never showed them", percent=True,
        better="min",
    ),
    "threshold": Metric("threshold", "words less sure than this are left out"),
    "misses": Metric(
        "misses", "share of the words said that are not heard with that threshold", percent=True, better="min"
    ),
    "false_alarms_per_hour": Metric(
        "false alarms per hour", "words heard with that threshold where none of them is said", better="min"
    ),
}  # fmt: skip
NAMES = ("hits", "substitutions", "deletions", "insertions")
AT_ONCE = 256
"""Utterances whose alignments are in memory."""
MATRIX, PAIRS, WORST, GROUPS = 20, 40, 10, 40
"""What an evaluation keeps: words of a confusion matrix, mistaken pairs, worst utterances, and groups."""
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""How the names of letters begin whose scripts put no spaces between words."""


def align(references: Sequence[str], hypotheses: Sequence[str], kind: Kind = "words") -> Iterator[list[Pair]]:
    """What was said beside what was heard, of one utterance after the other.

    Args:
        references: N texts as they were said; white space of any kind and length is one space.
        hypotheses: N texts as they were heard.
        kind: what is compared; of characters the spaces between words count, too.

    Yields:
        (said, heard) with the fewest mistakes; heard is "" where something was left out, said where it was put in.
    """
    import jiwer

    process: Any = jiwer.process_words if kind == "words" else jiwer.process_characters
    assert len(references) == len(hypotheses)
    for start in range(0, len(references), AT_ONCE):
        texts = [[" ".join(t.split()) for t in part[start : start + AT_ONCE]] for part in (references, hypotheses)]
        found = process(*texts)
        for said, heard, chunks in zip(found.references, found.hypotheses, found.alignments, strict=True):
            pairs: list[Pair] = []
            for c in chunks:
                left, right = said[c.ref_start_idx : c.ref_end_idx], heard[c.hyp_start_idx : c.hyp_end_idx]
                size = max(len(left), len(right))
                pairs += zip(left or [""] * size, right or [""] * size, strict=True)
            yield pairs


def count_pairs(pairs: Sequence[Pair]) -> tuple[int, int, int, int]:
    """Hits, substitutions, deletions and insertions of an aligned utterance."""
    deletions, insertions = sum(not heard for _, heard in pairs), sum(not said for said, _ in pairs)
    hits = sum(said == heard for said, heard in pairs)
    return hits, len(pairs) - hits - deletions - insertions, deletions, insertions


def counts(references: Sequence[str], hypotheses: Sequence[str], kind: Kind = "words") -> Counts:
    """(N, 4) of each utterance its hits, substitutions, deletions and insertions; see ``align``."""
    rows = [count_pairs(pairs) for pairs in align(references, hypotheses, kind)]
    return np.array(rows, np.int64).reshape(-1, 4)


def rates(counts: Counts, name: str = "wer") -> dict[str, float]:
    """The error rate and its parts.

    Args:
        counts: (N, 4).
        name: of the rate; "cer" where characters were counted.

    Returns:
        The rate by its name, ``substitutions``, ``deletions`` and ``insertions``, for each word (or character) that was
        said, over all utterances. They may be over 1; where nothing was said at all, they are numbers of mistakes.
    """
    sums = counts.sum(0)
    said = max(1, int(sums[:INSERTIONS].sum()))
    parts = {name: float(sums[i] / said) for i, name in enumerate(NAMES) if i != HITS}
    return {name: float(sums[SUBSTITUTIONS:].sum() / said), **parts}


def rate_interval(counts: Counts, seed: int = 0) -> Interval | None:
    """95 % interval of the error rate: utterances are drawn anew, since mistakes in one depend on each other.

    Where there is no mistake at all the bootstrap would draw none either; the upper end is then Wilson's for the share
    of utterances with one. Of a single utterance nothing is known: None.
    """
    if len(counts) < 2:
        return None
    if not counts[:, SUBSTITUTIONS:].any():
        return 0.0, wilson(0, len(counts))[1]
    both = np.stack([counts[:, SUBSTITUTIONS:].sum(1), counts[:, :INSERTIONS].sum(1)], 1)
    wrong, said = resampled_sums(both, seed).T
    low, high = np.quantile(wrong / np.maximum(said, 1), (0.025, 0.975))
    return float(low), float(high)


def metrics(words: Counts, characters: Counts) -> dict[str, float]:
    """``wer`` with its parts, ``cer``, and ``exact``: the share of utterances without a wrong word; (N, 4) each."""
    exact = float(_exact(words).mean()) if len(words) else 0.0
    parts = rates(words)
    return {"wer": parts.pop("wer"), "cer": rates(characters, "cer")["cer"], "exact": exact, **parts}


def intervals(words: Counts, characters: Counts, seed: int = 0) -> dict[str, Interval]:
    """95 % intervals of ``wer`` and ``cer`` (see ``rate_interval``), and of ``exact`` (Wilson's)."""
    found = {"wer": rate_interval(words, seed), "cer": rate_interval(characters, seed)}
    found["exact"] = wilson(int(_exact(words).sum()), len(words)) if len(words) else None
    return {name: interval for name, interval in found.items() if interval is not None}


def _exact(counts: Counts) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = counts[:, SUBSTITUTIONS:].sum(1) == 0
    return found


# ---- what an evaluation keeps


def evaluate(
    task: str,
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    speakers: Sequence[str] = (),
    durations_s: Sequence[float] | NDArray[Any] = (),
    confidences: Sequence[Sequence[float]] = (),
    seed: int = 0,
) -> Evaluation:
    """All that is measured of N utterances.

    Args:
        task: its name.
        references: as they were said.
        hypotheses: as they were heard.
        speakers: who said each; empty where that is not known.
        durations_s: how long each is.
        confidences: of the words of each hypothesis.
        seed: of the intervals.

    Returns:
        Metrics and intervals as above; ``words`` and ``characters`` (N, 4) as arrays; and the tables

        - ``unit``: "words", or "characters" for scripts without spaces: what all that follows is about;
        - ``errors``: by kind the sums of hits, substitutions, deletions and insertions;
        - ``confusions``: see ``confusions``;
        - ``worst``: utterances with the most mistakes, by number, with their pairs;
        - ``speakers`` and ``durations``: see ``by_group``;
        - ``calibration``: whether the confidence of words can be believed.
    """
    unit = unit_of(references)
    by_kind: dict[Kind, Counts] = {
        kind: counts(references, hypotheses, kind) for kind in ("words", "characters") if kind != unit
    }
    pairs: Counter[Pair] = Counter()
    rows = []
    for aligned in align(references, hypotheses, unit):
        pairs.update(aligned)
        rows.append(count_pairs(aligned))
    by_kind[unit] = np.array(rows, np.int64).reshape(-1, 4)
    words, characters = by_kind["words"], by_kind["characters"]
    tables: dict[str, Any] = {
        "unit": unit,
        "errors": {
            kind: dict(zip(NAMES, by_kind[kind].sum(0).tolist(), strict=True)) for kind in ("words", "characters")
        },
        "confusions": confusions(pairs),
        "worst": _worst(references, hypotheses, words, characters, unit, confidences),
    }
    if len(speakers):
        tables["speakers"] = by_group(by_kind[unit], speakers, seed=seed)
    if len(durations_s):
        which, names = quartiles(np.asarray(durations_s, np.float64))
        tables["durations"] = by_group(by_kind[unit], which, names, seed)
    if len(confidences):
        right = heard_rightly(references, hypotheses)
        sure = np.array([c for told in confidences for c in told], np.float64)
        assert len(right) == len(sure), "a confidence for each word that was heard"
        ece, bins = reliability(sure, right)
        tables["calibration"] = {"ece": ece, "bins": bins}
    arrays = {"words": words, "characters": characters}
    found = metrics(words, characters)
    return Evaluation(task, len(words), found, intervals(words, characters, seed), tables, arrays)


def unit_of(references: Sequence[str]) -> Kind:
    """Characters where most letters are of scripts that put no spaces between words (Chinese, Thai), else words."""
    letters: Counter[str] = Counter()
    for text in references:
        letters.update(text)
    unspaced = sum(n for c, n in letters.items() if unicodedata.name(c, "").startswith(UNSPACED))
    return "characters" if 2 * unspaced > sum(n for c, n in letters.items() if c.isalpha()) else "words"


def heard_rightly(references: Sequence[str], hypotheses: Sequence[str]) -> NDArray[np.bool_]:
    """(M,) of all words that were heard, one utterance after the other: whether it was right."""
    pairs = (pair for aligned in align(references, hypotheses) for pair in aligned)
    return np.array([said == heard for said, heard in pairs if heard], np.bool_)


def confusions(pairs: Counter[Pair]) -> dict[str, Any]:
    """What was taken for what.

    Args:
        pairs: how often each pair of ``align`` was there.

    Returns:
        ``pairs``: the most frequent mistakes, {"said", "heard", "num", "of"} with "" as in ``align``; ``of`` is how
        often it was said, or for what was put in, how often it was heard; ``num_pairs``: of how many. Of a vocabulary
        of at most 20 also ``names`` (K) and ``matrix`` (K + 1, K + 1): said in rows, heard in columns, the last row
        what was put in, the last column what was left out.
    """
    said, heard = Counter[str](), Counter[str]()
    for (left, right), num in pairs.items():
        said[left] += num
        heard[right] += num
    wrong = sorted(((n, pair) for pair, n in pairs.items() if pair[0] != pair[1]), key=lambda p: (-p[0], p[1]))
    table: dict[str, Any] = {
        "num_pairs": len(wrong),
        "pairs": [
            {"said": left, "heard": right, "num": n, "of": said[left] if left else heard[right]}
            for n, (left, right) in wrong[:PAIRS]
        ],
    }
    names = sorted({*said, *heard} - {""})
    if 0 < len(names) <= MATRIX:
        place = {name: i for i, name in enumerate([*names, ""])}
        matrix = np.zeros((len(place), len(place)), np.int64)
        for (left, right), num in pairs.items():
            matrix[place[left], place[right]] = num
        table |= {"names": names, "matrix": matrix.tolist()}
    return table


def _worst(
    references: Sequence[str],
    hypotheses: Sequence[str],
    words: Counts,
    characters: Counts,
    unit: Kind,
    confidences: Sequence[Sequence[float]],
) -> list[dict[str, Any]]:
    """The utterances with the most mistakes; of those with as many the surest: they may be labelled wrongly."""
    sure = np.array([min(c, default=0.0) for c in confidences] or [0.0] * len(words))
    wrong = [c[:, SUBSTITUTIONS:].sum(1) for c in (words, characters)]
    order = np.lexsort((-sure, -wrong[1], -wrong[0]))[:WORST]
    chosen = [i for i in order.tolist() if wrong[0][i]]
    aligned = align([references[i] for i in chosen], [hypotheses[i] for i in chosen], unit)
    return [
        {"utterance": i, "errors": int(wrong[0 if unit == "words" else 1][i]), "pairs": pairs}
        for i, pairs in zip(chosen, aligned, strict=True)
    ]


def by_group(counts: Counts, groups: Sequence[str], order: Sequence[str] = (), seed: int = 0) -> dict[str, Any]:
    """Error rates of speakers, of short and long utterances, and so on.

    Args:
        counts: (N, 4).
        groups: (N) the name of each utterance's group.
        order: of the groups, some of which may have nobody in them; empty for the worst first.
        seed: of the intervals.

    Returns:
        ``num_groups``, and as ``rows`` at most 40 of {"group", "num" utterances, "said" words or characters,
        "error_rate", "interval"}.
    """
    members: defaultdict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    found = {name: rates(counts[which])["wer"] for name, which in members.items()}
    names = [n for n in order if n in found] or sorted(found, key=lambda name: (-found[name], name))
    rows = [
        {
            "group": name,
            "num": len(members[name]),
            "said": int(counts[members[name], :INSERTIONS].sum()),
            "error_rate": found[name],
            "interval": rate_interval(counts[members[name]], seed),
        }
        for name in names[:GROUPS]
    ]
    return {"num_groups": len(members), "rows": rows}


def quartiles(durations_s: NDArray[np.float64]) -> tuple[list[str], list[str]]:
    """(N) which quarter each utterance is in, as a name ("0.31 to 0.42 s"), and these names, the shortest first.

    There are fewer than four where many utterances are equally long.
    """
    if not len(durations_s):
        return [], []
    edges = np.unique(np.quantile(durations_s, np.linspace(0, 1, 5)))
    digits = 2 if edges[-1] < 10 else 1 if edges[-1] < 100 else 0
    names = [f"{low:.{digits}f} to {high:.{digits}f} s" for low, high in pairwise(edges)]
    names = names or [f"{edges[0]:.{digits}f} s"]
    which = np.clip(np.searchsorted(edges, durations_s, "right") - 1, 0, len(names) - 1)
    return [names[i] for i in which], list(dict.fromkeys(names))
