"""From a network's distributions, step by step, to what was said: where a stretch of speech ends, and its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.tasks.speech_recognition.predictions import Transcript, Word
from dolmen.tasks.speech_recognition.processors.beam import PrefixBeam, Scorer
from dolmen.tasks.speech_recognition.processors.ctc import BLANK, greedy, log_probability, spell, text_of, words_of
from dolmen.tasks.speech_recognition.processors.grammar import Grammar

Readings = list[tuple[str, float]]
"""Texts with natural logs of how likely they are."""


@dataclass(frozen=True)
class Decoding:
    """How words are found.

    Attributes:
        width: hypotheses that are followed; 1 takes the best unit of each step.
        scorer: a language model of words; None for none.
        weight: of its logarithms.
        bonus: for each word, in nats.
        hot: words and phrases with what is added, in nats, where they are heard.
        grammar: only these sentences may be said.
        reject: a sentence of the grammar has to be this near, in nats a unit, to what is heard without one.
        threshold: words less sure than this are left out, and sentences of the grammar with such a word rejected.
        n_best: readings that are given.
        silence_s: so long a silence ends a stretch of speech.
        longest_s: and so much speech does, at the next blank.
    """

    width: int = 1
    scorer: Scorer | None = None
    weight: float = 0.5
    bonus: float = 0.0
    hot: Mapping[str, float] = field(default_factory=dict)
    grammar: Grammar | None = None
    reject: float = 2.0
    threshold: float = 0.0
    n_best: int = 1
    silence_s: float = 0.6
    longest_s: float = 30.0

    @property
    def searches(self) -> bool:
        """Whether a beam is needed."""
        return self.width > 1 and self.grammar is None


class Transcriber:
    """Distributions in any number of steps at a time, transcripts of stretches of speech as each ends.

    A stretch begins with the first step whose best unit is no blank, and some of the silence before it; it ends with a
    silence, or once it is too long. Where that is depends on the distributions alone, not on how they came, and memory
    is that of the longest stretch.

    Args:
        units: as text; see ``SpeechProcessor``.
        step_s: seconds from step to step.
        decoding: how.
    """

    def __init__(self, units: tuple[str, ...], step_s: float, decoding: Decoding) -> None:
        self.units, self.step_s, self.how = units, step_s, decoding
        self.quiet_steps = max(1, round(decoding.silence_s / step_s))
        self.most_steps = max(1, round(decoding.longest_s / step_s))
        how = decoding
        self.beam: PrefixBeam | None = None
        if how.searches:
            self.beam = PrefixBeam(
                units, width=how.width, scorer=how.scorer, weight=how.weight, bonus=how.bonus, hot_words=how.hot
            )
        self.reset()

    def reset(self, start_s: float = 0.0) -> None:
        """Begin anew; the next step is that many seconds from where times are counted."""
        self.start_s, self.begin = start_s, 0
        self._wait_for_speech()

    def _wait_for_speech(self) -> None:
        self.heard, self.quiet, self.spoken = False, 0, 0
        self.parts: list[NDArray[np.float32]] = []  # of silence, until something is heard
        self.shown = ""
        if self.beam is not None:
            self.beam.reset()
        if self.how.grammar is not None:
            self.alpha = self.how.grammar.start()

    def feed(self, logp: NDArray[np.float32]) -> list[Transcript]:
        """Take in (T, V) log-probabilities; the stretches that have ended with them."""
        found, start = [], 0
        for at, loud in enumerate((logp.argmax(1) != BLANK).tolist()):
            if loud and not self.heard:
                self._keep_silence(logp[start:at])
                silence, self.parts, self.heard, start = self.parts, [], True, at
                self._take(silence[0])
            self.quiet = 0 if loud else self.quiet + 1
            self.spoken += self.heard
            # One that is too long ends between two units, or one would be heard twice; there are always some blanks.
            long = self.spoken >= self.most_steps * (1 + loud)
            if self.heard and (self.quiet >= self.quiet_steps or long):
                self._take(logp[start : at + 1])
                start = at + 1
                found.append(self._end())
        if self.heard:
            self._take(logp[start:])
        else:
            self._keep_silence(logp[start:])
        return found

    def finish(self) -> list[Transcript]:
        """The stretch that has not ended; the next begins after it."""
        return [self._end()] if self.heard else []

    def partial(self) -> Transcript | None:
        """What is heard of the stretch until now; None if nothing is, or the same as when it was asked for last."""
        if not self.heard:
            return None
        best, others = self._best(final=False)
        text = text_of(best, self.units)
        if text == self.shown:
            return None
        self.shown = text
        return self._transcript(best, others, final=False)

    def _keep_silence(self, logp: NDArray[np.float32]) -> None:
        """Of silence before anything is said, only the last is kept."""
        silence = np.concatenate([*self.parts, logp])
        kept = silence[-self.quiet_steps :].copy()
        self.begin, self.parts = self.begin + len(silence) - len(kept), [kept]

    def _take(self, logp: NDArray[np.float32]) -> None:
        if not len(logp):
            return
        self.parts.append(np.array(logp))
        if self.how.grammar is not None:
            self.alpha = self.how.grammar.step(self.alpha, logp)
        elif self.beam is not None:
            self.beam.feed(logp)

    def _end(self) -> Transcript:
        found = self._transcript(*self._best(final=True), final=True)
        self.begin += sum(map(len, self.parts))
        self._wait_for_speech()
        return found

    def _best(self, *, final: bool) -> tuple[tuple[int, ...], Readings]:
        """The most probable units, and readings with their logs: of a grammar all, of a beam as many as are wanted."""
        if self.how.grammar is not None:
            readings = self.how.grammar.read(self.alpha)
            return spell(readings[0][0], self.units), readings
        if self.beam is None:
            return greedy(np.concatenate(self.parts)), []
        found = self.beam.best(self.how.n_best, final=final)
        return found[0].units, [(text_of(h.units, self.units), h.score) for h in found]

    def _transcript(self, best: tuple[int, ...], readings: Readings, *, final: bool) -> Transcript:
        how, logp = self.how, np.concatenate(self.parts)
        start = self.start_s + self.begin * self.step_s
        end = start + len(logp) * self.step_s
        if how.grammar is not None:
            return self._command(best, readings, logp, (start, end, final))
        found = self._words(logp, best)
        words = tuple(w for w in found if w.confidence >= how.threshold)
        text = " ".join(w.text for w in words) if how.threshold else text_of(best, self.units)
        # While a stretch goes on, what takes its whole length in time each time is not asked for.
        whole = final and len(words) == len(found)
        sure = float(np.exp(log_probability(logp, best)) if whole else np.prod([w.confidence for w in words]))
        sure = 0.0 if found and not words else sure
        alternatives = _shares(readings) if how.n_best > 1 else ()
        return Transcript(text, words, sure, start, end, final, alternatives=alternatives)

    def _command(
        self, best: tuple[int, ...], readings: Readings, logp: NDArray[np.float32], when: tuple[float, float, bool]
    ) -> Transcript:
        how, (text, score) = self.how, readings[0]
        behind = (score - log_probability(logp, greedy(logp))) / len(best)
        words = tuple(self._words(logp, best)) if behind >= -how.reject else ()
        if not words or min(w.confidence for w in words) < how.threshold:
            return Transcript("", (), 0.0, *when, rejected=True)
        shares = _shares(readings)
        sure = shares[0][1] * min(1.0, float(np.exp(behind)))
        return Transcript(text, words, sure, *when, alternatives=shares[: how.n_best] if how.n_best > 1 else ())

    def _words(self, logp: NDArray[np.float32], units: tuple[int, ...]) -> list[Word]:
        s, start = self.step_s, self.start_s + self.begin * self.step_s
        return [
            Word(text, start + first * s, start + (last + 1) * s, confidence)
            for text, first, last, confidence in words_of(logp, units, self.units)
        ]

    def save(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """All that it has in mind: arrays, and plain values."""
        logp = np.concatenate([np.zeros((0, len(self.units)), np.float32), *self.parts])
        about = {name: getattr(self, name) for name in ("start_s", "begin", "heard", "quiet", "spoken", "shown")}
        return {"heard_logp": logp}, about

    def restore(self, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
        """Undo ``save``.

        Raises:
            ValueError, KeyError, TypeError: it can't be one, or is of other units; then it has to be reset.
        """
        logp = np.array(arrays["heard_logp"], np.float32)
        if logp.ndim != 2 or logp.shape[1] != len(self.units) or not np.isfinite(logp).all():
            raise ValueError("the distributions of this stream are damaged, or another network's")
        self.reset(float(about["start_s"]))
        self.begin, self.quiet, self.spoken = int(about["begin"]), int(about["quiet"]), int(about["spoken"])
        self.heard, self.shown = bool(about["heard"]), str(about["shown"])
        if self.heard:
            self._take(logp)
        else:
            self._keep_silence(logp)


def _shares(readings: Readings) -> tuple[tuple[str, float], ...]:
    """How sure each is among these; those that read alike count together."""
    logs = np.array([log for _, log in readings])
    shares = np.exp(logs - np.logaddexp.reduce(logs))
    merged: dict[str, float] = {}
    for (text, _), share in zip(readings, shares.tolist(), strict=True):
        merged[text] = merged.get(text, 0.0) + share
    return tuple(sorted(merged.items(), key=lambda item: -item[1]))
