"""Word and character error rates of transcripts, with their mistakes; alignments are jiwer's."""

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

Unit = Literal["words", "characters"]
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
COUNT_NAMES = ("hits", "substitutions", "deletions", "insertions")
CHUNK_UTTERANCES = 256
"""Utterances whose alignments are in memory together."""
MAX_MATRIX_WORDS, MAX_PAIRS, MAX_WORST, MAX_GROUPS = 20, 40, 10, 40
"""What an evaluation keeps: words of a confusion matrix, mistaken pairs, worst utterances, and groups."""
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Prefixes of the Unicode names of letters whose scripts put no spaces between words."""


def align(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "words") -> Iterator[list[Pair]]:
    """Aligned words or characters of reference and hypothesis, one utterance after the other.

    Args:
        references: N texts as they were said; white space of any kind and length is one space.
        hypotheses: N texts as they were heard.
        unit: what is compared; with characters the spaces between words count, too.

    Yields:
        (reference, hypothesis) with the fewest mistakes; the hypothesis is "" where something was left out, the
        reference where it was put in.
    """
    import jiwer

    process: Any = jiwer.process_words if unit == "words" else jiwer.process_characters
    assert len(references) == len(hypotheses)
    for start in range(0, len(references), CHUNK_UTTERANCES):
        stop = start + CHUNK_UTTERANCES
        texts = [[" ".join(t.split()) for t in part[start:stop]] for part in (references, hypotheses)]
        output = process(*texts)
        for reference, hypothesis, chunks in zip(output.references, output.hypotheses, output.alignments, strict=True):
            pairs: list[Pair] = []
            for c in chunks:
                ref_part, hyp_part = (
                    reference[c.ref_start_idx : c.ref_end_idx],
                    hypothesis[c.hyp_start_idx : c.hyp_end_idx],
                )
                size = max(len(ref_part), len(hyp_part))
                pairs += zip(ref_part or [""] * size, hyp_part or [""] * size, strict=True)
            yield pairs


def count_pairs(pairs: Sequence[Pair]) -> tuple[int, int, int, int]:
    """Hits, substitutions, deletions and insertions of an aligned utterance."""
    deletions, insertions = sum(not hypothesis for _, hypothesis in pairs), sum(not reference for reference, _ in pairs)
    hits = sum(reference == hypothesis for reference, hypothesis in pairs)
    return hits, len(pairs) - hits - deletions - insertions, deletions, insertions


def counts(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "words") -> Counts:
    """(N, 4) hits, substitutions, deletions and insertions of each utterance, by the pairs of ``align``."""
    rows = [count_pairs(pairs) for pairs in align(references, hypotheses, unit)]
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
    num_said = max(1, int(sums[:INSERTIONS].sum()))
    parts = {name: float(sums[i] / num_said) for i, name in enumerate(COUNT_NAMES) if i != HITS}
    return {name: float(sums[SUBSTITUTIONS:].sum() / num_said), **parts}


def rate_interval(counts: Counts, seed: int = 0) -> Interval | None:
    """95 % interval of the error rate: utterances are drawn anew, since mistakes in one depend on each other.

    Where there is no mistake at all the bootstrap would draw none either; the upper end is then Wilson's for the share
    of utterances with one. None for a single utterance.
    """
    if len(counts) < 2:
        return None
    if not counts[:, SUBSTITUTIONS:].any():
        return 0.0, wilson(0, len(counts))[1]
    wrong_and_said = np.stack([counts[:, SUBSTITUTIONS:].sum(1), counts[:, :INSERTIONS].sum(1)], 1)
    num_wrong, num_said = resampled_sums(wrong_and_said, seed).T
    low, high = np.quantile(num_wrong / np.maximum(num_said, 1), (0.025, 0.975))
    return float(low), float(high)


def metrics(words: Counts, characters: Counts) -> dict[str, float]:
    """``wer`` with its parts, ``cer``, and ``exact``: the share of utterances without a wrong word; (N, 4) each."""
    exact = float(_exact(words).mean()) if len(words) else 0.0
    parts = rates(words)
    return {"wer": parts.pop("wer"), "cer": rates(characters, "cer")["cer"], "exact": exact, **parts}


def intervals(words: Counts, characters: Counts, seed: int = 0) -> dict[str, Interval]:
    """95 % intervals of ``wer`` and ``cer`` (see ``rate_interval``), and of ``exact`` (Wilson's)."""
    by_metric = {"wer": rate_interval(words, seed), "cer": rate_interval(characters, seed)}
    by_metric["exact"] = wilson(int(_exact(words).sum()), len(words)) if len(words) else None
    return {name: interval for name, interval in by_metric.items() if interval is not None}


def _exact(counts: Counts) -> NDArray[np.bool_]:
    exact: NDArray[np.bool_] = counts[:, SUBSTITUTIONS:].sum(1) == 0
    return exact


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
    """Metrics, intervals and tables of N utterances.

    Args:
        task: its name.
        references: texts that were said.
        hypotheses: texts that were heard.
        speakers: who said each; empty where that is not known.
        durations_s: how long each is.
        confidences: of the words of each hypothesis.
        seed: of the intervals.

    Returns:
        Metrics and intervals as above; ``words`` and ``characters`` (N, 4) as arrays; and the tables

        - ``unit``: "words", or "characters" for scripts without spaces: what all that follows is about;
        - ``errors``: of words and of characters the sums of hits, substitutions, deletions and insertions;
        - ``confusions``: see ``confusions``;
        - ``worst``: utterances with the most mistakes, by number, with their pairs;
        - ``speakers`` and ``durations``: see ``by_group``;
        - ``calibration``: whether the confidence of words can be believed.
    """
    unit = unit_of(references)
    by_unit: dict[Unit, Counts] = {
        counted: counts(references, hypotheses, counted) for counted in ("words", "characters") if counted != unit
    }
    pairs: Counter[Pair] = Counter()
    rows = []
    for aligned in align(references, hypotheses, unit):
        pairs.update(aligned)
        rows.append(count_pairs(aligned))
    by_unit[unit] = np.array(rows, np.int64).reshape(-1, 4)
    words, characters = by_unit["words"], by_unit["characters"]
    tables: dict[str, Any] = {
        "unit": unit,
        "errors": {
            name: dict(zip(COUNT_NAMES, num.sum(0).tolist(), strict=True))
            for name, num in (("words", words), ("characters", characters))
        },
        "confusions": confusions(pairs),
        "worst": _worst(references, hypotheses, words, characters, unit, confidences),
    }
    if len(speakers):
        tables["speakers"] = by_group(by_unit[unit], speakers, seed=seed)
    if len(durations_s):
        which, names = quartiles(np.asarray(durations_s, np.float64))
        tables["durations"] = by_group(by_unit[unit], which, names, seed)
    if len(confidences):
        correct = correct_words(references, hypotheses)
        confidence = np.array([c for utterance in confidences for c in utterance], np.float64)
        assert len(correct) == len(confidence), "a confidence for each word that was heard"
        ece, bins = reliability(confidence, correct)
        tables["calibration"] = {"ece": ece, "bins": bins}
    arrays = {"words": words, "characters": characters}
    values = metrics(words, characters)
    return Evaluation(task, len(words), values, intervals(words, characters, seed), tables, arrays)


def unit_of(references: Sequence[str]) -> Unit:
    """Characters where most letters are of scripts that put no spaces between words (Chinese, Thai), else words."""
    letters: Counter[str] = Counter()
    for text in references:
        letters.update(text)
    unspaced = sum(n for c, n in letters.items() if unicodedata.name(c, "").startswith(UNSPACED))
    return "characters" if 2 * unspaced > sum(n for c, n in letters.items() if c.isalpha()) else "words"


def correct_words(references: Sequence[str], hypotheses: Sequence[str]) -> NDArray[np.bool_]:
    """(M,) of all words that were heard, one utterance after the other: whether it was right."""
    pairs = (pair for aligned in align(references, hypotheses) for pair in aligned)
    return np.array([reference == hypothesis for reference, hypothesis in pairs if hypothesis], np.bool_)


def confusions(pairs: Counter[Pair]) -> dict[str, Any]:
    """The most frequent mistakes, and a confusion matrix of small vocabularies.

    Args:
        pairs: how often each pair of ``align`` came.

    Returns:
        ``pairs``: the most frequent mistakes, {"said", "heard", "num", "of"} with "" as in ``align``; ``of`` is how
        often it was said, or for what was put in, how often it was heard; ``num_pairs``: of how many. Of a vocabulary
        of at most 20 also ``names`` (K) and ``matrix`` (K + 1, K + 1): said in rows, heard in columns, the last row
        what was put in, the last column what was left out.
    """
    num_said, num_heard = Counter[str](), Counter[str]()
    for (reference, hypothesis), num in pairs.items():
        num_said[reference] += num
        num_heard[hypothesis] += num
    mistakes = sorted(((n, pair) for pair, n in pairs.items() if pair[0] != pair[1]), key=lambda p: (-p[0], p[1]))
    table: dict[str, Any] = {
        "num_pairs": len(mistakes),
        "pairs": [
            {"said": ref, "heard": hyp, "num": n, "of": num_said[ref] if ref else num_heard[hyp]}
            for n, (ref, hyp) in mistakes[:MAX_PAIRS]
        ],
    }
    names = sorted({*num_said, *num_heard} - {""})
    if 0 < len(names) <= MAX_MATRIX_WORDS:
        place = {name: i for i, name in enumerate([*names, ""])}
        matrix = np.zeros((len(place), len(place)), np.int64)
        for (reference, hypothesis), num in pairs.items():
            matrix[place[reference], place[hypothesis]] = num
        table |= {"names": names, "matrix": matrix.tolist()}
    return table


def _worst(
    references: Sequence[str],
    hypotheses: Sequence[str],
    words: Counts,
    characters: Counts,
    unit: Unit,
    confidences: Sequence[Sequence[float]],
) -> list[dict[str, Any]]:
    """The utterances with the most mistakes; of those with as many the surest: they may be labelled wrongly."""
    confidence = np.array([min(c, default=0.0) for c in confidences] or [0.0] * len(words))
    wrong = [c[:, SUBSTITUTIONS:].sum(1) for c in (words, characters)]
    order = np.lexsort((-confidence, -wrong[1], -wrong[0]))[:MAX_WORST]
    chosen = [i for i in order.tolist() if wrong[0][i]]
    aligned = align([references[i] for i in chosen], [hypotheses[i] for i in chosen], unit)
    return [
        {"utterance": i, "errors": int(wrong[0 if unit == "words" else 1][i]), "pairs": pairs}
        for i, pairs in zip(chosen, aligned, strict=True)
    ]


def by_group(counts: Counts, groups: Sequence[str], order: Sequence[str] = (), seed: int = 0) -> dict[str, Any]:
    """Error rates of groups of utterances, such as those of a speaker or of a duration.

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
    rate_of = {name: rates(counts[which])["wer"] for name, which in members.items()}
    names = [n for n in order if n in rate_of] or sorted(rate_of, key=lambda name: (-rate_of[name], name))
    rows = [
        {
            "group": name,
            "num": len(members[name]),
            "said": int(counts[members[name], :INSERTIONS].sum()),
            "error_rate": rate_of[name],
            "interval": rate_interval(counts[members[name]], seed),
        }
        for name in names[:MAX_GROUPS]
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
    quarters = np.clip(np.searchsorted(edges, durations_s, "right") - 1, 0, len(names) - 1)
    return [names[i] for i in quarters], list(dict.fromkeys(names))
