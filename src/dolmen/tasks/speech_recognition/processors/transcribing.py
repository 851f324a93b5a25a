"""Distributions of a network, step by step, to transcripts: where a stretch of speech ends, and its words."""

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
    """Settings of the decoder.

    Attributes:
        width: hypotheses that are followed; 1 takes the best unit of each step.
        scorer: a language model of words; None for none.
        weight: of its logarithms.
        bonus: for each word, in nats.
        hot: words and phrases with the nats that are added where they are heard.
        grammar: only these sentences may be said.
        reject: a sentence of the grammar has to be this near, in nats a unit, to what is heard without one.
        threshold: words less sure than this are left out, and sentences of the grammar with such a word rejected.
        n_best: readings that are given.
        silence_s: length of the silence that ends a stretch of speech.
        longest_s: length of speech that ends it, too, at the next blank.
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
    """A decoder of a stream: distributions of any number of steps in, transcripts of stretches as each ends out.

    A stretch begins with the first step whose best unit is no blank, and some of the silence before it; it ends with a
    silence, or once it is too long. Where that is depends on the distributions alone, not on how they came, and memory
    is that of the longest stretch.

    Args:
        units: as text; see ``SpeechProcessor``.
        step_s: seconds from step to step.
        decoding: settings.
    """

    def __init__(self, units: tuple[str, ...], step_s: float, decoding: Decoding) -> None:
        self.units, self.step_s, self.decoding = units, step_s, decoding
        self.min_quiet_steps = max(1, round(decoding.silence_s / step_s))
        self.max_steps = max(1, round(decoding.longest_s / step_s))
        self.beam: PrefixBeam | None = None
        if decoding.searches:
            self.beam = PrefixBeam(
                units, width=decoding.width, scorer=decoding.scorer, weight=decoding.weight, bonus=decoding.bonus,
                hot_words=decoding.hot,
            )  # fmt: skip
        self.reset()

    def reset(self, start_s: float = 0.0) -> None:
        """Begin anew; the next step is that many seconds from where times are counted."""
        self.start_s, self.begin = start_s, 0
        self._wait_for_speech()

    def _wait_for_speech(self) -> None:
        self.in_speech, self.num_quiet, self.num_spoken = False, 0, 0
        self.parts: list[NDArray[np.float32]] = []  # of silence, until something is heard
        self.last_partial = ""
        if self.beam is not None:
            self.beam.reset()
        if self.decoding.grammar is not None:
            self.alpha = self.decoding.grammar.start()

    def feed(self, logp: NDArray[np.float32]) -> list[Transcript]:
        """Take in (T, V) log-probabilities, and return the stretches that have ended with them."""
        transcripts, start = [], 0
        for step, is_unit in enumerate((logp.argmax(1) != BLANK).tolist()):
            if is_unit and not self.in_speech:
                self._keep_silence(logp[start:step])
                silence, self.parts, self.in_speech, start = self.parts, [], True, step
                self._take(silence[0])
            self.num_quiet = 0 if is_unit else self.num_quiet + 1
            self.num_spoken += self.in_speech
            # One that is too long ends between two units, or one would be heard twice; there are always some blanks.
            is_too_long = self.num_spoken >= self.max_steps * (1 + is_unit)
            if self.in_speech and (self.num_quiet >= self.min_quiet_steps or is_too_long):
                self._take(logp[start : step + 1])
                start = step + 1
                transcripts.append(self._end())
        if self.in_speech:
            self._take(logp[start:])
        else:
            self._keep_silence(logp[start:])
        return transcripts

    def finish(self) -> list[Transcript]:
        """The stretch that has not ended; the next begins after it."""
        return [self._end()] if self.in_speech else []

    def partial(self) -> Transcript | None:
        """The stretch until now; None where nothing is heard, or the text is that of the last call."""
        if not self.in_speech:
            return None
        best, others = self._best(final=False)
        text = text_of(best, self.units)
        if text == self.last_partial:
            return None
        self.last_partial = text
        return self._transcript(best, others, final=False)

    def _keep_silence(self, logp: NDArray[np.float32]) -> None:
        """Keep the end of the silence before speech."""
        silence = np.concatenate([*self.parts, logp])
        kept = silence[-self.min_quiet_steps :].copy()
        self.begin, self.parts = self.begin + len(silence) - len(kept), [kept]

    def _take(self, logp: NDArray[np.float32]) -> None:
        if not len(logp):
            return
        self.parts.append(np.array(logp))
        if self.decoding.grammar is not None:
            self.alpha = self.decoding.grammar.step(self.alpha, logp)
        elif self.beam is not None:
            self.beam.feed(logp)

    def _end(self) -> Transcript:
        transcript = self._transcript(*self._best(final=True), final=True)
        self.begin += sum(map(len, self.parts))
        self._wait_for_speech()
        return transcript

    def _best(self, *, final: bool) -> tuple[tuple[int, ...], Readings]:
        """The most probable units, and readings with their logs: of a grammar all, of a beam as many as are wanted."""
        if self.decoding.grammar is not None:
            readings = self.decoding.grammar.read(self.alpha)
            return spell(readings[0][0], self.units), readings
        if self.beam is None:
            return greedy(np.concatenate(self.parts)), []
        hypotheses = self.beam.best(self.decoding.n_best, final=final)
        return hypotheses[0].units, [(text_of(h.units, self.units), h.score) for h in hypotheses]

    def _transcript(self, best: tuple[int, ...], readings: Readings, *, final: bool) -> Transcript:
        decoding, logp = self.decoding, np.concatenate(self.parts)
        start = self.start_s + self.begin * self.step_s
        end = start + len(logp) * self.step_s
        if decoding.grammar is not None:
            return self._command(best, readings, logp, (start, end, final))
        words = self._words(logp, best)
        confident = tuple(w for w in words if w.confidence >= decoding.threshold)
        text = " ".join(w.text for w in confident) if decoding.threshold else text_of(best, self.units)
        # While a stretch goes on, log_probability would run over its whole length again and again.
        is_whole = final and len(confident) == len(words)
        confidence = float(
            np.exp(log_probability(logp, best)) if is_whole else np.prod([w.confidence for w in confident])
        )
        confidence = 0.0 if words and not confident else confidence
        alternatives = _shares(readings) if decoding.n_best > 1 else ()
        return Transcript(text, confident, confidence, start, end, final, alternatives=alternatives)

    def _command(
        self, best: tuple[int, ...], readings: Readings, logp: NDArray[np.float32], when: tuple[float, float, bool]
    ) -> Transcript:
        decoding, (text, score) = self.decoding, readings[0]
        behind = (score - log_probability(logp, greedy(logp))) / len(best)
        words = tuple(self._words(logp, best)) if behind >= -decoding.reject else ()
        if not words or min(w.confidence for w in words) < decoding.threshold:
            return Transcript("", (), 0.0, *when, rejected=True)
        shares = _shares(readings)
        confidence = shares[0][1] * min(1.0, float(np.exp(behind)))
        alternatives = shares[: decoding.n_best] if decoding.n_best > 1 else ()
        return Transcript(text, words, confidence, *when, alternatives=alternatives)

    def _words(self, logp: NDArray[np.float32], units: tuple[int, ...]) -> list[Word]:
        s, start = self.step_s, self.start_s + self.begin * self.step_s
        return [
            Word(text, start + first * s, start + (last + 1) * s, confidence)
            for text, first, last, confidence in words_of(logp, units, self.units)
        ]

    def save(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The state: arrays, and plain values."""
        logp = np.concatenate([np.zeros((0, len(self.units)), np.float32), *self.parts])
        values = {
            "start_s": self.start_s,
            "begin": self.begin,
            "heard": self.in_speech,
            "quiet": self.num_quiet,
            "spoken": self.num_spoken,
            "shown": self.last_partial,
        }
        return {"heard_logp": logp}, values

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Undo ``save``.

        Raises:
            ValueError, KeyError, TypeError: it is damaged, or of other units; then the transcriber has to be reset.
        """
        logp = np.array(arrays["heard_logp"], np.float32)
        if logp.ndim != 2 or logp.shape[1] != len(self.units) or not np.isfinite(logp).all():
            raise ValueError("the distributions of this stream are damaged, or another network's")
        self.reset(float(values["start_s"]))
        self.begin, self.num_quiet, self.num_spoken = int(values["begin"]), int(values["quiet"]), int(values["spoken"])
        self.in_speech, self.last_partial = bool(values["heard"]), str(values["shown"])
        if self.in_speech:
            self._take(logp)
        else:
            self._keep_silence(logp)


def _shares(readings: Readings) -> tuple[tuple[str, float], ...]:
    """The probability of each text among these readings, the most probable first; equal texts count together."""
    logs = np.array([log for _, log in readings])
    shares = np.exp(logs - np.logaddexp.reduce(logs))
    merged: dict[str, float] = {}
    for (text, _), share in zip(readings, shares.tolist(), strict=True):
        merged[text] = merged.get(text, 0.0) + share
    return tuple(sorted(merged.items(), key=lambda item: -item[1]))
