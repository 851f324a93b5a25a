"""Options of decoding speech, and the decoder's settings that they come to."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from dolmen.files import write_whole
from dolmen.runtime.options import LocalPath, NotServed, Served
from dolmen.runtime.predictor import read_text_file
from dolmen.tasks.speech_recognition.predictor.word_scorer import WordScorer
from dolmen.tasks.speech_recognition.processors.beam import Scorer
from dolmen.tasks.speech_recognition.processors.grammar import Grammar
from dolmen.tasks.speech_recognition.processors.ngrams import NGrams
from dolmen.tasks.speech_recognition.processors.speech import SpeechProcessor
from dolmen.tasks.speech_recognition.processors.text_rules import normalise
from dolmen.tasks.speech_recognition.processors.transcribing import Decoding
from dolmen.types import UserError

BEAM_WIDTH = 16
"""Hypotheses that are followed where a language model, hot words or several readings want some."""
HOT_WORD_NATS = 4.0
"""Nats by which a hot word is preferred."""
OF_LANGUAGE_MODEL = NotServed("list words as hot instead", "is of a language model, which is not served")


class DecodeOptions(BaseModel):
    """Options of decoding a recording."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    beam: Annotated[int | None, Served(maximum=100)] = Field(
        None,
        ge=1,
        le=1000,
        description="hypotheses that are followed; 1 takes the best unit of each step (default: 1, or 16 with --lm, "
        "--hot, --word-bonus or --n-best)",
    )
    lm: Annotated[LocalPath | None, NotServed("list words as hot instead")] = Field(
        None, description="a language model of words: an ARPA file, a text to make one of, or a text-generation model"
    )
    lm_order: Annotated[int, OF_LANGUAGE_MODEL] = Field(
        3, ge=1, le=6, description="words of an n-gram that is made of a text (default 3)"
    )
    lm_out: Annotated[LocalPath | None, NotServed("write it with dolmen predict")] = Field(
        None, description="write the n-grams that were made of a text: NAME.arpa"
    )
    lm_weight: Annotated[float, OF_LANGUAGE_MODEL] = Field(0.5, ge=0, description="of the language model (default 0.5)")
    word_bonus: Annotated[float, Served()] = Field(
        0.0, description="nats for each word, against too few of them (default 0)"
    )
    hot: Annotated[tuple[str, ...], Served()] = Field(
        (), description="WORD or WORD=NATS: prefer it where it may have been said (4 nats)"
    )
    command: Annotated[tuple[str, ...], Served()] = Field(
        (), description="a sentence that may be said; with these, nothing else is heard"
    )
    commands: Annotated[LocalPath | None, NotServed("list its sentences as command instead")] = Field(
        None, description="a file with such sentences, one a line"
    )
    reject: Annotated[float, Served()] = Field(
        2.0, ge=0, description="nats a unit by which a command may fall behind what is heard without them (default 2)"
    )
    threshold: Annotated[float | None, Served()] = Field(
        None,
        ge=0,
        le=1,
        description="leave words out that are less sure, and reject a command with such a word (default: chosen in "
        "training, or 0)",
    )
    n_best: Annotated[int, Served()] = Field(
        1, ge=1, le=100, description="readings to give, with their probabilities (default 1)"
    )
    silence_s: Annotated[float, Served(maximum=60)] = Field(
        0.6, gt=0, description="silence that ends a stretch of speech (default 0.6)"
    )
    longest_s: Annotated[float, Served(maximum=60)] = Field(
        30.0, gt=0, description="speech after which a stretch ends without one (default 30)"
    )


class StreamOptions(DecodeOptions):
    """Options of decoding a stream."""

    partial: Annotated[bool, Served()] = Field(
        False, description="also give what is heard while a stretch of speech goes on"
    )


def decoding(p: SpeechProcessor, options: DecodeOptions, open_model: Callable[[Path], Any] | None) -> Decoding:
    """The decoder's settings, with the files that options name read.

    Args:
        p: of the network.
        options: as given.
        open_model: opens a run or a bundle.

    Raises:
        UserError: one can't be read, or two options contradict each other.
    """
    hot = dict(_hot(text, p) for text in options.hot)
    commands = _commands(p, options)
    language = {"--lm": options.lm, "--hot": options.hot, "--word-bonus": options.word_bonus}
    chosen = [name for name, value in language.items() if value]
    if commands and (chosen or options.beam):
        other = chosen[0] if chosen else "--beam"
        raise UserError(f"--command leaves nothing to choose for {other}; give one or the other")
    chosen += ["--n-best"] if options.n_best > 1 else []
    if options.beam == 1 and chosen:
        raise UserError(f"--beam 1 takes the best unit of each step and leaves {chosen[0]} no say; try --beam 16")
    return Decoding(
        width=options.beam or (BEAM_WIDTH if chosen else 1), scorer=_scorer(p, options, open_model),
        weight=options.lm_weight, bonus=options.word_bonus, hot=hot,
        grammar=Grammar(commands, p.units) if commands else None, reject=options.reject,
        threshold=p.threshold if options.threshold is None else options.threshold, n_best=options.n_best,
        silence_s=options.silence_s, longest_s=options.longest_s,
    )  # fmt: skip


def _commands(p: SpeechProcessor, options: DecodeOptions) -> list[str]:
    """The commands of both options, normalised."""
    lines = list(options.command)
    if options.commands is not None:
        content = read_text_file(Path(options.commands), "a sentence a line")
        listed = [line for line in content.splitlines() if line.strip()]
        if not listed:
            raise UserError(f"{options.commands} holds no sentence; give one a line")
        lines += listed
    commands = [normalise(line, p.rules) for line in lines]
    if "" in commands:
        raise UserError(f"the command {lines[commands.index('')]!r} holds no word; give one, or leave it out")
    return commands


def _scorer(p: SpeechProcessor, options: DecodeOptions, open_model: Callable[[Path], Any] | None) -> Scorer | None:
    if options.lm is None:
        if options.lm_out is not None:
            raise UserError("--lm-out writes what is made of a text; name the text with --lm")
        return None
    path = Path(options.lm)
    head = _head(path)
    is_model = head is None or head.startswith(b"\x1f\x8b") or re.search(rb"^\s*\\data\\\s*$", head, re.M)
    if is_model and options.lm_out is not None:
        raise UserError(f"--lm-out writes what is made of a text, and {path} is a language model; leave it out")
    if head is None:
        return _text_generation(path, open_model)
    if is_model:
        model = NGrams.read_arpa(path)
        if not any(word == normalise(word, p.rules) for word in model.words):
            raise UserError(
                f"no word of {path} is written as this model writes words ({p.rules.sentence()}); write them so"
            )
        return model
    lines = (normalise(line, p.rules) for line in read_text_file(path, "an ARPA file, or a text").splitlines())
    model = NGrams.train([line for line in lines if line], options.lm_order)
    if options.lm_out is not None:
        write_whole(Path(options.lm_out), model.to_arpa().encode(), otherwise="choose another --lm-out")
    return model


def _head(path: Path) -> bytes | None:
    """The first bytes of a file; None of a run or a bundle."""
    from dolmen.runtime.bundle import SUFFIX  # which knows all predictors

    if path.is_dir() or path.suffix == SUFFIX:
        return None
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}; name an ARPA file, a text, or a model") from None


def _text_generation(path: Path, open_model: Callable[[Path], Any] | None) -> WordScorer:
    if open_model is None:
        raise UserError(f"--lm {path} can be opened by a recogniser that dolmen.load opened; open it so")
    model = open_model(path)
    if model.task_name != "text-generation":
        raise UserError(f"{path} does {model.task_name}; --lm takes a text, an ARPA file or a text-generation model")
    return WordScorer(model.processor, model.network)


def _hot(text: str, p: SpeechProcessor) -> tuple[str, float]:
    name, equals, nats = text.rpartition("=")
    try:
        value = float(nats) if equals else HOT_WORD_NATS
    except ValueError:
        value = math.nan
    word = normalise(name if equals else text, p.rules)
    if not word or not math.isfinite(value):
        raise UserError(f"--hot {text} is neither WORD nor WORD=NATS; type for example --hot dolmen=5")
    return word, value
