"""From a network's distributions, step by step, to what was said: where a stretch of speech ends, and its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.processors.ctc import BLANK, greedy, log_probability, spell, text_of, words_of
from dolmen.processors.ctc_beam import Hypothesis, PrefixBeam, Scorer, nbest_probabilities
from dolmen.processors.ctc_grammar import Grammar
from dolmen.types import Transcript, UserError, Word


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
        threshold: words less sure than this are left out.
        num_best: readings that are given.
        silence_s: so long a silence ends a stretch of speech.
        longest_s: and so much speech does.
    """

    width: int = 1
    scorer: Scorer | None = None
    weight: float = 0.5
    bonus: float = 0.0
    hot: Mapping[str, float] = field(default_factory=dict)
    grammar: Grammar | None = None
    reject: float = 2.0
    threshold: float = 0.0
    num_best: int = 1
    silence_s: float = 0.6
    longest_s: float = 30.0

    @property
    def searches(self) -> bool:
        """Whether a beam is needed."""
        return self.width > 1 and self.grammar is None


class Transcriber:
    """Distributions in any number of steps at a time, transcripts of stretches of speech as each ends.

    Where stretches end depends on the distributions alone, not on how they came, and memory is that of the longest
    stretch.

    Args:
        units: as text; see ``SpeechProcessor``.
        step_s: seconds from step to step.
        decoding: how.
    """

    def __init__(self, units: tuple[str, ...], step_s: float, decoding: Decoding) -> None:
        self.units, self.step_s, self.how = units, step_s, decoding
        self.quiet_steps = max(1, round(decoding.silence_s / step_s))
        self.most_steps = max(self.quiet_steps + 1, round(decoding.longest_s / step_s))
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.begin, self.quiet, self.heard = 0, 0, False
        self.parts: list[NDArray[np.float32]] = []
        how = self.how
        self.beam = (
            PrefixBeam(
                self.units, width=how.width, scorer=how.scorer, weight=how.weight, bonus=how.bonus, hot_words=how.hot
            )
            if how.searches
            else None
        )

    def feed(self, logp: NDArray[np.float32]) -> list[Transcript]:
        """Take in (T, V) log-probabilities; the stretches that have ended with them.

        Steps of silence before anything is said are forgotten.
        """
        found = []
        speech = (logp.argmax(1) != BLANK).tolist()
        start = 0
        for at, loud in enumerate(speech):
            self.heard |= loud
            self.quiet = 0 if loud else self.quiet + 1
            length = sum(map(len, self.parts)) + at + 1 - start
            if (self.heard and self.quiet >= self.quiet_steps) or length >= self.most_steps:
                self._take(logp[start : at + 1])
                start = at + 1
                found += self._ended()
        self._take(logp[start:])
        return found

    def finish(self) -> list[Transcript]:
        """The stretch that has not ended; the next begins after it."""
        return self._ended()

    def partial(self) -> Transcript | None:
        """What is heard of the stretch until now; None if nothing is."""
        if not self.heard:
            return None
        return self._transcript(np.concatenate(self.parts), final=False)

    def _take(self, logp: NDArray[np.float32]) -> None:
        if len(logp):
            self.parts.append(np.array(logp))
            if self.beam is not None:
                self.beam.feed(logp)

    def _ended(self) -> list[Transcript]:
        steps = sum(map(len, self.parts))
        found = [self._transcript(np.concatenate(self.parts), final=True)] if self.heard else []
        self.begin, self.quiet, self.heard, self.parts = self.begin + steps, 0, False, []
        if self.beam is not None:
            self.beam.reset()
        return found

    def _transcript(self, logp: NDArray[np.float32], *, final: bool) -> Transcript:
        how, start = self.how, self.begin * self.step_s
        end = start + len(logp) * self.step_s
        if how.grammar is not None:
            return self._command(logp, start, end, final)
        if self.beam is None:
            best, others = greedy(logp), []
        else:
            others = self.beam.best(how.num_best, final=final)
            best = others[0].units
        words = tuple(w for w in self._words(logp, best) if w.confidence >= how.threshold)
        text = " ".join(w.text for w in words) if how.threshold else text_of(best, self.units)
        sure = float(np.exp(log_probability(logp, best)))
        return Transcript(text, words, sure, start, end, final, alternatives=self._alternatives(others))

    def _alternatives(self, found: list[Hypothesis]) -> tuple[tuple[str, float], ...]:
        if self.how.num_best < 2:
            return ()
        merged: dict[str, float] = {}
        for hypothesis, p in zip(found, nbest_probabilities(found), strict=True):
            text = text_of(hypothesis.units, self.units)
            merged[text] = merged.get(text, 0.0) + p
        return tuple(merged.items())

    def _command(self, logp: NDArray[np.float32], start: float, end: float, final: bool) -> Transcript:
        how = self.how
        assert how.grammar is not None
        readings = how.grammar.read(logp)
        text, score = readings[0]
        units = spell(text, self.units)
        behind = (score - log_probability(logp, greedy(logp))) / len(units)
        if not behind >= -how.reject:
            return Transcript("", (), 0.0, start, end, final, rejected=True)
        total = np.logaddexp.reduce([s for _, s in readings])
        probabilities = tuple((t, float(np.exp(s - total))) for t, s in readings[: how.num_best])
        sure = probabilities[0][1] * min(1.0, float(np.exp(behind)))
        alternatives = probabilities if how.num_best > 1 else ()
        return Transcript(text, tuple(self._words(logp, units)), sure, start, end, final, alternatives=alternatives)

    def _words(self, logp: NDArray[np.float32], units: tuple[int, ...]) -> list[Word]:
        if not units:
            return []
        s, begin = self.step_s, self.begin
        return [
            Word(text, (begin + first) * s, (begin + last + 1) * s, confidence)
            for text, first, last, confidence in words_of(logp, units, self.units)
        ]

    def save(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """All that it has in mind: arrays, and plain values."""
        logp = np.concatenate(self.parts) if self.parts else np.zeros((0, len(self.units)), np.float32)
        return {"heard_logp": logp}, {"begin": self.begin, "quiet": self.quiet, "heard": self.heard}

    def restore(self, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
        """Undo ``save``.

        Raises:
            UserError: it is of other units.
        """
        logp = arrays["heard_logp"]
        if logp.ndim != 2 or logp.shape[1] != len(self.units):
            raise UserError("this is a saved session of another network; restore one that this network saved")
        self.reset()
        self.begin, self.quiet, self.heard = int(about["begin"]), int(about["quiet"]), bool(about["heard"])
        self._take(logp.astype(np.float32))
