"""Sections of the report on text generation, and the picture that explains one text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dolmen.nn.recurrent.language_model import LanguageModel
from dolmen.processors.text.tokens import TextProcessor
from dolmen.report import text as page
from dolmen.tasks.text_generation.data.windows import TextDataset
from dolmen.types import Evaluation, Section, UserError

MAX_SHOWN_TOKENS, MAX_GATE_TOKENS, MAX_SEARCHED_TOKENS, MAX_UNIT_TOKENS = 1500, 80, 6000, 500
"""Tokens coloured by surprise, drawn with gates, searched for legible units, and coloured by those."""
MIN_CORRELATION = 0.35
"""Correlation from which on a unit is said to follow something."""


def sections(
    model: LanguageModel,
    processor: TextProcessor,
    datasets: Mapping[str, TextDataset],
    evaluations: dict[str, Evaluation],
) -> list[Section]:
    """The report's sections."""
    split = "test" if "test" in evaluations else next(iter(evaluations))
    dataset = datasets[split]
    tokens = torch.from_numpy(np.array(dataset.tokens[: MAX_SEARCHED_TOKENS + 1], np.int64))
    reading = _read(model, tokens)
    symbols = [processor.show(int(t)) for t in tokens[1 : MAX_SHOWN_TOKENS + 1]]
    guesses = [_guess(processor, p, i) for p, i in zip(*(v[:MAX_SHOWN_TOKENS] for v in reading.best), strict=True)]
    parts: list[Section | None] = [page.surprise_section(symbols, reading.bits[:MAX_SHOWN_TOKENS], guesses)]
    if gates := _gates(model, tokens[: MAX_GATE_TOKENS + 1]):
        parts.append(page.gates_section([processor.show(int(t)) for t in tokens[:MAX_GATE_TOKENS]], gates))
    parts.append(page.units_section(*_legible(processor, tokens[:-1], reading.outputs)))
    return [section for section in parts if section is not None]


def explain(model: LanguageModel, processor: TextProcessor, text: str, out: Path) -> dict[str, Any]:
    """Write a picture of how a text surprised the model, and what its gates did.

    Returns:
        Bits a token and in all, and the tokens that were least expected.
    """
    numbers = processor.encode_text(text)
    if len(numbers) < 2:
        raise UserError(f"{text!r} has {len(numbers)} tokens; give a text of at least 2 to explain")
    tokens = torch.from_numpy(numbers.astype(np.int64))[: MAX_SHOWN_TOKENS + 1]
    reading = _read(model, tokens)
    symbols = [processor.show(int(t)) for t in tokens]
    bits = np.concatenate([[0.0], reading.bits])  # nothing was expected before the first
    gates = _gates(model, tokens[: MAX_GATE_TOKENS + 1])
    page.explanation(out, tokens=symbols, bits=bits, gates=gates, title="What surprised it, and what its gates did")
    worst = np.argsort(-reading.bits, kind="stable")[:5]
    return {
        "tokens": len(tokens),
        "bits_per_token": round(float(reading.bits.mean()), 3),
        "least_expected": [
            {"token": symbols[i + 1], "position": int(i) + 1, "bits": round(float(reading.bits[i]), 2)} for i in worst
        ],
        "picture": str(out),
    }


class _Reading:
    """What a model predicted along a text of T + 1 tokens.

    Attributes:
        bits: (T,) surprise of each token after the first.
        outputs: (T, H) of the last layer.
        best: (T, 3) probabilities and numbers of the tokens that were most expected.
    """

    def __init__(self, bits: NDArray[Any], outputs: NDArray[Any], best: tuple[NDArray[Any], NDArray[Any]]) -> None:
        self.bits, self.outputs, self.best = bits, outputs, best


def _read(model: LanguageModel, tokens: Tensor) -> _Reading:
    device = model.embedding.weight.device
    with torch.inference_mode():
        out, _ = model.layers(F.embedding(tokens[None, :-1].to(device), model.embedding.weight))
        bits, best, outputs = [], [], []
        for o, wanted in zip(torch.split(out[0], 512), torch.split(tokens[1:].to(device), 512), strict=True):
            logp = F.log_softmax(model.logits(o).float(), -1)
            bits.append((-logp.gather(-1, wanted[:, None])[:, 0] / np.log(2)).cpu().numpy())
            top = logp.topk(min(3, logp.shape[1]))
            best.append((top.values.exp().cpu().numpy(), top.indices.cpu().numpy()))
            outputs.append(o.float().cpu().numpy())
    expected = np.concatenate([b[0] for b in best]), np.concatenate([b[1] for b in best])
    return _Reading(np.concatenate(bits), np.concatenate(outputs), expected)


def _guess(processor: TextProcessor, probabilities: NDArray[Any], numbers: NDArray[Any]) -> str:
    return ", ".join(f"{processor.show(int(n))!r} {p:.0%}" for p, n in zip(probabilities, numbers, strict=True))


def _gates(model: LanguageModel, tokens: Tensor) -> dict[str, NDArray[Any]]:
    """(T, H) by name, of the last layer."""
    with torch.inference_mode():
        inputs = F.embedding(tokens[None, :-1].to(model.embedding.weight.device), model.embedding.weight)
        _, _, gates = model.layers(inputs, return_gates=True)
    return {name: values[:, 0].float().cpu().numpy() for name, values in gates[-1].items()}


# ---- units that follow something


def _inside(opening: str, closing: str) -> Callable[[str], NDArray[np.float64]]:
    def follow(text: str) -> NDArray[np.float64]:
        depth, out = 0, []
        for c in text:
            if c == opening and (opening != closing or not depth):
                depth += 1
            elif c == closing:
                depth = max(0, depth - 1)
            elif c == "\n" and opening == closing:
                depth = 0
            out.append(float(depth > 0))
        return np.array(out)

    return follow


def _place_in_line(text: str) -> NDArray[np.float64]:
    out, at = [], 0
    for c in text:
        out.append(min(at, 100) / 100)
        at = 0 if c == "\n" else at + 1
    return np.array(out)


def _place_in_word(text: str) -> NDArray[np.float64]:
    out, at = [], 0
    for c in text:
        at = at + 1 if c.isalnum() else 0
        out.append(min(at, 12) / 12)
    return np.array(out)


LEGIBLE: dict[str, Callable[[str], NDArray[np.float64]]] = {
    "inside (round brackets)": _inside("(", ")"),
    "inside [square brackets]": _inside("[", "]"),
    'inside "quotes"': _inside('"', '"'),
    "place in the line": _place_in_line,
    "place in the word": _place_in_word,
    "capital letters": lambda text: np.array([float(c.isupper()) for c in text]),
    "digits": lambda text: np.array([float(c.isdigit()) for c in text]),
    "after a line feed": lambda text: np.array([float(c == "\n") for c in text]),
}


def _legible(
    processor: TextProcessor, tokens: Tensor, outputs: NDArray[Any]
) -> tuple[list[str], list[tuple[str, int, float, NDArray[Any]]]]:
    """The tokens to show, and for each thing one can see in a text the unit that follows it best.

    The unit is searched for in one half of the text, its correlation taken from the other.
    """
    symbols = [processor.show(int(t)) for t in tokens]
    last = np.cumsum([len(s) for s in symbols]) - 1  # a token stands where its last character does
    text, half = "".join(symbols), len(symbols) // 2
    units = []
    for name, follow in LEGIBLE.items():
        values = follow(text)[np.maximum(last, 0)]
        if min(values[:half].std(), values[half:].std()) < 0.02:
            continue
        unit = int(np.abs(_correlation(outputs[:half], values[:half])).argmax())
        r = float(_correlation(outputs[half:, [unit]], values[half:])[0])
        if abs(r) >= MIN_CORRELATION:
            largest = max(1e-6, float(np.abs(outputs[:, unit]).max()))
            units.append((name, unit, r, outputs[:MAX_UNIT_TOKENS, unit] / largest))
    units.sort(key=lambda item: -abs(item[2]))
    return symbols[:MAX_UNIT_TOKENS], units


def _correlation(outputs: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
    """(H,) Pearson's correlation of each unit with ``values``."""
    x, y = outputs - outputs.mean(0), values - values.mean()
    scale = np.sqrt((x * x).sum(0) * (y * y).sum())
    return np.asarray((x * y[:, None]).sum(0) / np.maximum(scale, 1e-12), np.float64)
