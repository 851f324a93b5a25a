"""The peer "plain CTC": two layers of torch.nn.GRU on log-mels with nn.CTCLoss, and scikit-learn without a network.

As people write it with PyTorch alone, forwards only so that it can stream: 40 log-mels every 10 ms by torch.stft, mean
and deviation of the training recordings, four frames a step, a GRU of 56 units and two layers (as many parameters as
ours), a unit for each word, AdamW with one cycle up to 3e-3, gradients clipped at 5, and as its only augmentation a
little white noise. It learns from all recordings that are not for the test, ours for validation among them. The number
of steps is planned from the measured time of a step, so that the schedule ends within the budget; what it has learned
at the end is measured. The other row is an SVM (RBF kernel) on mean and deviation of each recording's log-mels.

    python benchmarks/peers/plain_ctc.py LIST.csv --minutes 3 [--strings STRINGS.csv] [--lr 0.003] [--batch 32]
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import csv  # noqa: E402
import json  # noqa: E402
from pathlib import Path  # noqa: E402

import jiwer  # noqa: E402
import numpy as np  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.svm import SVC  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.utils.rnn import pad_sequence  # noqa: E402

NUM_MELS, STACKED, HIDDEN, LAYERS = 40, 4, 56, 2


def read(path: Path, split: str) -> tuple[list[Tensor], list[str], int]:
    """Samples, texts and the sampling rate of a split; of all splits but the test, for "train"."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["split"] == "test") == (split == "test")]
    sounds = [soundfile.read(path.parent / row["path"], dtype="float32") for row in rows]
    return [torch.from_numpy(samples) for samples, _ in sounds], [row["text"] for row in rows], sounds[0][1]


def mel_bank(rate: int, fft: int) -> Tensor:
    """(fft / 2 + 1, NUM_MELS) triangles that overlap by half."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, NUM_MELS + 2) / 2595) - 1)
    bins = np.linspace(0, rate / 2, fft // 2 + 1)[:, None]
    up, down = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(np.maximum(0, np.minimum(up, down))).float()


class LogMel(nn.Module):
    """(N,) samples to (T, NUM_MELS)."""

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.window, self.hop, self.fft = (
            torch.hann_window(rate // 40),
            rate // 100,
            2 ** int(np.ceil(np.log2(rate // 40))),
        )
        self.bank = mel_bank(rate, self.fft)

    def forward(self, samples: Tensor) -> Tensor:
        """See the class."""
        samples = torch.cat([samples, samples.new_zeros(max(0, self.fft - len(samples)))])
        spectrum = torch.stft(
            samples, self.fft, self.hop, len(self.window), self.window, return_complex=True, pad_mode="constant"
        )
        return torch.log(spectrum.abs().square().T @ self.bank + 1e-6)


class Network(nn.Module):
    """Frames, a few a step, through the recurrent layers to units; the first is the blank."""

    def __init__(self, num_units: int) -> None:
        super().__init__()
        self.gru = nn.GRU(NUM_MELS * STACKED, HIDDEN, LAYERS, batch_first=True)
        self.head = nn.Linear(HIDDEN, num_units)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, NUM_MELS) to (B, ceil(T / STACKED), units) log-probabilities."""
        b, t, f = frames.shape
        steps = -(-t // STACKED)
        stacked = nn.functional.pad(frames, (0, 0, 0, steps * STACKED - t)).reshape(b, steps, STACKED * f)
        return self.head(self.gru(stacked)[0]).log_softmax(-1)


class Script:
    """The training recordings, and what is done with them."""

    def __init__(self, sounds: list[Tensor], texts: list[str], rate: int) -> None:
        self.sounds, self.front = sounds, LogMel(rate)
        self.words = sorted({word for text in texts for word in text.split()})
        numbers = {word: i for i, word in enumerate(self.words, start=1)}
        self.targets = [torch.tensor([numbers[word] for word in text.split()]) for text in texts]
        everything = torch.cat([self.front(s) for s in sounds])
        self.mean, self.deviation = everything.mean(0), everything.std(0)

    def features(self, samples: Tensor) -> Tensor:
        """(N,) samples to (T, NUM_MELS) normalised."""
        return (self.front(samples) - self.mean) / self.deviation

    def step(self, net: Network, optimizer: torch.optim.Optimizer, rows: list[int]) -> float:
        """One step of training; its loss."""
        snr_db = torch.empty(len(rows)).uniform_(10, 40).tolist()
        sounds = [self.sounds[i] for i in rows]
        noise = [torch.randn(len(s)) * s.std() * 10 ** (-db / 20) for s, db in zip(sounds, snr_db, strict=True)]
        frames = [self.features(s + n) for s, n in zip(sounds, noise, strict=True)]
        found = net(pad_sequence(frames, batch_first=True)).transpose(0, 1)
        steps = torch.tensor([-(-len(f) // STACKED) for f in frames])
        targets = [self.targets[i] for i in rows]
        loss = nn.functional.ctc_loss(
            found, torch.cat(targets), steps, torch.tensor([len(t) for t in targets]), zero_infinity=True
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        return loss.item()

    @torch.inference_mode()
    def hear(self, net: Network, samples: Tensor) -> str:
        """The best unit of each step."""
        best = torch.unique_consecutive(net(self.features(samples)[None])[0].argmax(-1))
        return " ".join(self.words[i - 1] for i in best.tolist() if i)


def without_a_network(script: Script, texts: list[str], test: list[Tensor], said: list[str]) -> float:
    """Share that an SVM names rightly by mean and deviation of the log-mels."""

    def described(sounds: list[Tensor]) -> np.ndarray:
        frames = [script.features(s) for s in sounds]
        return torch.stack([torch.cat([f.mean(0), f.std(0, correction=0)]) for f in frames]).numpy()

    fitted = make_pipeline(StandardScaler(), SVC(C=10.0)).fit(described(script.sounds), texts)
    return float(np.mean(fitted.predict(described(test)) == np.array(said)))


def planned(script: Script, args: argparse.Namespace) -> int:
    """Steps that fit into what is left of the budget, by the median of a throw-away network's."""
    probe, times = Network(len(script.words) + 1), []
    optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-6)
    for _ in range(8):
        start = time.perf_counter()
        script.step(probe, optimizer, torch.randint(0, len(script.sounds), (args.batch,)).tolist())
        times.append(time.perf_counter() - start)
    left = 60 * args.minutes - (time.perf_counter() - STARTED)
    return max(10, int(0.97 * left / float(np.median(times[2:]))))


def train(script: Script, args: argparse.Namespace) -> tuple[Network, int]:
    """A network, and how many steps it took."""
    total, net = planned(script, args), Network(len(script.words) + 1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=total)
    order = torch.randperm(0)
    steps = 0
    while steps < 10 or (steps < total and time.perf_counter() - STARTED < 60 * args.minutes):
        if len(order) < args.batch:
            order = torch.randperm(len(script.sounds))
        rows, order = order[: args.batch].tolist(), order[args.batch :]
        script.step(net, optimizer, rows)
        schedule.step()
        steps += 1
    return net.eval(), steps


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("data", type=Path)
    options.add_argument("--minutes", type=float, required=True)
    options.add_argument("--strings", type=Path, help="a list of longer recordings to try it on, too")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--lr", type=float, default=3e-3)
    options.add_argument("--batch", type=int, default=32)
    args = options.parse_args()
    torch.manual_seed(args.seed)
    sounds, texts, rate = read(args.data, "train")
    test, said, _ = read(args.data, "test")
    script = Script(sounds, texts, rate)
    net, steps = train(script, args)
    wall_s = time.perf_counter() - STARTED

    heard = [script.hear(net, s) for s in test]
    row = {"exact": float(np.mean([a == b for a, b in zip(said, heard, strict=True)])), "wer": jiwer.wer(said, heard)}
    parameters, epochs = sum(p.numel() for p in net.parameters()), steps * args.batch / len(sounds)
    print(json.dumps({"who": "plain CTC", **row, "parameters": parameters, "wall s": wall_s, "epochs": epochs}))
    if args.strings:
        longer, said_there, _ = read(args.strings, "test")
        wer = jiwer.wer(said_there, [script.hear(net, s) for s in longer])
        print(json.dumps({"who": "plain CTC, strings", "wer": wer}))
    print(json.dumps({"who": "scikit-learn", "exact": without_a_network(script, texts, test, said)}))


if __name__ == "__main__":
    main()
