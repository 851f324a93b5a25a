"""The recurrent pillar: the plain unit, the LSTM and the GRU.

Drop-in for ``torch.nn.RNN``, ``LSTM`` and ``GRU``: same constructor, same names in the state dict, same numbers. What
they add: sequences of different lengths without packing, states that start anew inside a batch, steps and chunks that
equal the whole sequence, gates that can be looked at, weight drop, locked dropout, zoneout, layer norm, projection and
residual connections for every cell, and kernels for CPU and GPU (``explain`` says which path is taken, and why).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dolmen.nn.masks import locked_dropout, random_mask
from dolmen.nn.recurrent import loop as recurrent_loop
from dolmen.nn.recurrent.graph import run_in_graph
from dolmen.nn.recurrent.path import choose_path
from dolmen.nn.recurrent.state import State, checked_lengths, checked_shape, checked_state, parameter_shapes, with_batch
from dolmen.nn.recurrent.stream import Stepper
from dolmen.nn.recurrent.torch_layers import run_torch


class Recurrent(nn.Module):
    """A stack of recurrent layers, whatever the cell; use ``RNN``, ``LSTM`` or ``GRU``.

    Outputs have D * P features: D directions, P the projected or hidden size.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size: as in torch.nn;
            ``proj_size`` for every cell.
        input_dropout, hidden_dropout, output_dropout: locked dropout (Gal & Ghahramani, 2016), one mask a sequence,
            before the first layer, between layers and after the last one.
        weight_drop: dropout on the weights from state to state (Merity et al., 2018).
        zoneout: rate at which units of the state keep their value (Krueger et al., 2017), or (state, cell) rates.
        layer_norm: normalise the input's and the state's part of the gates, and the LSTM's cell before its tanh
            (Ba et al., 2016).
        residual: add a layer's input to its output where the sizes agree, from the second layer on.
        learn_state: the initial state is learned instead of zero.
        mogrifier: rounds in which input and state gate each other before each step (Melis et al., 2020); of an LSTM
            without projection and zoneout. It has no kernel: steps are taken one by one.
        compiled: take our kernels where they are quickest.

    Raises:
        ValueError: sizes or rates are out of range.
    """

    cell: ClassVar[str]
    weight_ih_l0: Tensor
    start_hidden: Tensor
    start_cell: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        input_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        output_dropout: float = 0.0,
        weight_drop: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        layer_norm: bool = False,
        residual: bool = False,
        learn_state: bool = False,
        mogrifier: int = 0,
        compiled: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
        self.proj_size, self.weight_drop, self.residual, self.compiled = proj_size, weight_drop, residual, compiled
        self.input_dropout, self.hidden_dropout, self.output_dropout = input_dropout, hidden_dropout, output_dropout
        self.zoneout = (zoneout, zoneout) if isinstance(zoneout, int | float) else zoneout
        self.layer_norm, self.learn_state, self.mogrifier = layer_norm, learn_state, mogrifier
        self._check()
        make = functools.partial(torch.empty, device=device, dtype=dtype)
        for layer in range(num_layers):
            for end in self._directions():
                for name, shape in parameter_shapes(self, layer).items():
                    self._add(f"{name}_l{layer}{end}", make(*shape))
        if learn_state:
            count = num_layers * self.num_directions
            self._add("start_hidden", make(count, self.output_size))
            if self.has_memory:
                self._add("start_cell", make(count, hidden_size))
        self.reset_parameters()

    def _check(self) -> None:
        if min(self.input_size, self.hidden_size, self.num_layers) < 1:
            raise ValueError("input_size, hidden_size and num_layers have to be at least 1")
        if not 0 <= self.proj_size < max(self.hidden_size, 1):
            raise ValueError(f"proj_size {self.proj_size} has to be less than hidden_size {self.hidden_size}")
        for name in ("dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is no rate between 0 and 1")
        if not all(0 <= rate <= 1 for rate in self.zoneout):
            raise ValueError(f"zoneout {self.zoneout} is no rate between 0 and 1")
        if self.mogrifier and (self.cell != "lstm" or self.proj_size or any(self.zoneout)):
            raise ValueError("mogrifier is for an LSTM without projection and zoneout")

    def _add(self, name: str, values: Tensor) -> None:
        self.register_parameter(name, nn.Parameter(values))

    @property
    def num_directions(self) -> int:
        """2 if bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """P: features of a direction's output."""
        return self.proj_size or self.hidden_size

    @property
    def has_memory(self) -> bool:
        """Whether ``State.cell`` is used: by an LSTM, and by a GRU whose state is projected (what it was before)."""
        return self.cell == "lstm" or (self.cell == "gru" and self.proj_size > 0)

    def _directions(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def extra_repr(self) -> str:
        """The options that differ from their defaults, for ``print``."""
        defaults: dict[str, Any] = {"num_layers": 1, "bias": True, "zoneout": (0.0, 0.0), "compiled": True}
        defaults |= dict.fromkeys(
            ("batch_first", "dropout", "bidirectional", "proj_size", "input_dropout", "hidden_dropout",
             "output_dropout", "weight_drop", "layer_norm", "residual", "learn_state", "mogrifier"), 0
        )  # fmt: skip
        more = "".join(f", {k}={getattr(self, k)}" for k, v in defaults.items() if getattr(self, k) != v)
        return f"{self.input_size}, {self.hidden_size}{more}"

    # ---- weights

    def reset_parameters(self) -> None:
        """Draw parameters as torch.nn does, uniform in +-1/sqrt(hidden_size); scales 1, shifts and learned states 0."""
        bound = 1 / math.sqrt(self.hidden_size)
        for name, p in self.named_parameters():
            if "scale" in name:
                nn.init.ones_(p)
            elif "shift" in name or name.startswith("start"):
                nn.init.zeros_(p)
            else:
                nn.init.uniform_(p, -bound, bound)

    @classmethod
    def from_torch(cls, layer: nn.RNNBase, **more: Any) -> Self:
        """The same layer with the same weights, from torch.nn's.

        Args:
            layer: an ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``.
            more: options of ours.

        Raises:
            ValueError: it is a layer of another class.
        """
        classes: dict[str, Any] = {"LSTM": LSTM, "GRU": GRU, "RNN_TANH": RNN, "RNN_RELU": RNN}
        if classes[layer.mode] not in cls.__mro__:
            raise ValueError(f"{cls.__name__}.from_torch got torch's {layer.mode}; use {classes[layer.mode].__name__}")
        if layer.mode.startswith("RNN"):
            more["nonlinearity"] = layer.mode[4:].lower()
        first: Any = layer.weight_ih_l0
        converted = cls(
            layer.input_size, layer.hidden_size, layer.num_layers, layer.bias, layer.batch_first, layer.dropout,
            layer.bidirectional, layer.proj_size, device=first.device, dtype=first.dtype, **more,
        )  # fmt: skip
        converted.load_state_dict(layer.state_dict(), strict=False)
        return converted.train(layer.training)

    def to_torch(self) -> nn.RNNBase:
        """The same layer as torch.nn's, with copies of the weights.

        Raises:
            ValueError: an option is used that torch.nn has not.
        """
        options = {n: getattr(self, n) for n in ("layer_norm", "residual", "learn_state", "mogrifier")}
        options |= {"zoneout": any(self.zoneout), "proj_size": bool(self.proj_size) and self.cell != "lstm"}
        if used := [n for n, on in options.items() if on]:
            raise ValueError(f"torch.nn's {type(self).__name__} has no {', '.join(used)}")
        torch_class: Any = {"lstm": nn.LSTM, "gru": nn.GRU}.get(self.cell, nn.RNN)
        more: dict[str, Any] = {"proj_size": self.proj_size} if self.cell == "lstm" else {}
        if torch_class is nn.RNN:
            more["nonlinearity"] = self.cell[4:]
        first = self.weight_ih_l0
        converted: nn.RNNBase = torch_class(
            self.input_size, self.hidden_size, self.num_layers, bias=self.bias, batch_first=self.batch_first,
            dropout=self.dropout, bidirectional=self.bidirectional, device=first.device, dtype=first.dtype, **more,
        )  # fmt: skip
        converted.load_state_dict(self.state_dict())
        return converted.train(self.training)

    # ---- running

    def initial_state(self, batch: int) -> State:
        """The state before the first step: zeros, or what was learned."""
        like = self.weight_ih_l0
        count = self.num_layers * self.num_directions
        if self.learn_state:
            starts = [None if v is None else v[:, None].expand(-1, batch, -1) for v in self._learned()]
            return checked_state(self, starts, batch)
        cell = like.new_zeros(count, batch, self.hidden_size) if self.has_memory else None
        return State(like.new_zeros(count, batch, self.output_size), cell)

    def _learned(self) -> tuple[Tensor | None, Tensor | None]:
        """The learned initial state of all layers, (L, P) and (L, H); None where there is none."""
        if not self.learn_state:
            return None, None
        count = self.num_layers * self.num_directions
        hidden = checked_shape("start_hidden", self.start_hidden, (count, self.output_size))
        if not self.has_memory:
            return hidden, None
        return hidden, checked_shape("start_cell", self.start_cell, (count, self.hidden_size))

    def forward(
        self,
        x: Tensor,
        state: State | Tensor | tuple[Tensor, Tensor | None] | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        reset_mask: Tensor | None = None,
        *,
        return_gates: bool = False,
    ) -> Any:
        """(T, B, input_size) -> (T, B, D * P), and the state: whole sequences, or the next chunk of them.

        Args:
            x: (B, T, input_size) with ``batch_first``; (T, input_size) is one sequence; the output lies the same way.
            state: what an earlier call returned; None for the initial state.
            lengths: (B) steps of each sequence; outputs behind them are 0 and the state is that after the last step.
            reset_mask: (T, B), or (B, T) with ``batch_first``, bool: where a new sequence begins, so that the state
                starts anew before this step.
            return_gates: also return the activated gates.

        Returns:
            The output and the last ``State``; with ``return_gates`` also a list with one dict for each layer and
            direction: (T, B, H) by name: "input", "forget", "cell" and "output" of an LSTM, "reset", "update" and
            "new" of a GRU, "new" of a plain unit.

        Raises:
            ValueError: shapes do not fit together.
        """
        if single := x.ndim == 2:
            x, state = x[:, None], with_batch(state)
            reset_mask = None if reset_mask is None else reset_mask[:, None]
        elif self.batch_first:
            x = x.transpose(0, 1)
            reset_mask = None if reset_mask is None else reset_mask.transpose(0, 1)
        start, lengths, reset_mask = self._prepare(x, state, lengths, reset_mask)
        valid = None if lengths is None else torch.arange(x.shape[0], device=x.device)[:, None, None] < lengths[:, None]
        if valid is not None and not torch.compiler.is_exporting():
            x = x.masked_fill(~valid, 0)  # a NaN there, times a gradient of 0, would be a NaN in the weights' gradients
        y = locked_dropout(x, self.input_dropout, self.training)
        hidden, memory, gates = [], [], []
        for layer in range(self.num_layers):
            outputs = []
            for d, end in enumerate(self._directions()):
                at = layer * self.num_directions + d
                memory_at = None if start.cell is None else start.cell[at]
                out, last, kept, activations = self._run_layer(
                    y, layer, end, start.hidden[at], memory_at, lengths, reset_mask, return_gates
                )
                outputs.append(out)
                hidden.append(last)
                memory.append(kept)
                gates.append(activations)
            out = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if valid is not None:
                out = out * valid
            if self.residual and layer and out.shape == y.shape:
                out = out + y
            y = out
            if layer < self.num_layers - 1:
                y = F.dropout(y, self.dropout, self.training)
                y = locked_dropout(y, self.hidden_dropout, self.training)
        y = locked_dropout(y, self.output_dropout, self.training)
        cells = [m for m in memory if m is not None]
        last_state = State(torch.stack(hidden), torch.stack(cells) if cells else None).to(self.weight_ih_l0.dtype)
        if single:
            y = y[:, 0]
            last_state = State(last_state.hidden[:, 0], None if last_state.cell is None else last_state.cell[:, 0])
        elif self.batch_first:
            y = y.transpose(0, 1)
        return (y, last_state, gates) if return_gates else (y, last_state)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One step of a stream: (B, input_size) and a state to (B, P) and the next state. Equals ``forward``.

        Raises:
            ValueError: the layer is bidirectional: it needs the whole sequence.
        """
        if self.bidirectional:
            raise ValueError("a bidirectional layer needs the whole sequence; it has no step")
        y, after = self.forward(x[:, None] if self.batch_first else x[None], state)
        return y.squeeze(1 if self.batch_first else 0), after

    def stepper(self, batch: int = 1) -> Stepper:
        """The layers as a stream that keeps its state: the quickest way from step to step on the CPU.

        Args:
            batch: streams side by side.

        Raises:
            ValueError: the layer is bidirectional.
        """
        if self.bidirectional:
            raise ValueError("a bidirectional layer needs the whole sequence; it has no step")
        return Stepper(self, batch)

    def weights(self, layer: int, end: str = "") -> dict[str, Any]:
        """The parameters of a layer by torch's names without number; None where there is none.

        Args:
            layer: from 0.
            end: "" or "_reverse".

        Raises:
            ValueError: one has another shape than it was made with: a kernel would read what lies behind it.
        """
        shapes = parameter_shapes(self, layer)
        return {
            k: checked_shape(k, getattr(self, f"{k}_l{layer}{end}"), shapes[k]) if k in shapes else None
            for k in WEIGHTS
        }

    def _prepare(
        self, x: Tensor, state: Any, lengths: Any, reset_mask: Tensor | None
    ) -> tuple[State, Tensor | None, Tensor | None]:
        """Bring state, lengths and resets into shape, or raise what is wrong with them."""
        if x.ndim != 3 or x.shape[-1] != self.input_size:
            raise ValueError(f"the input has the shape {tuple(x.shape)}; its last axis has to be {self.input_size}")
        steps, batch = x.shape[:2]
        if steps == 0:
            raise ValueError("the input has no step")
        state = self.initial_state(batch) if state is None else checked_state(self, state, batch)
        if lengths is not None:
            lengths = checked_lengths(lengths, steps, batch, x.device)
        if reset_mask is not None:
            checked_shape("reset_mask", reset_mask, (steps, batch))
        return state, lengths, reset_mask

    def _run_layer(
        self,
        x: Tensor,
        layer: int,
        end: str,
        state: Tensor,
        memory: Tensor | None,
        lengths: Tensor | None,
        reset: Tensor | None,
        return_gates: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None, dict[str, Tensor]]:
        """One direction of one layer: outputs (T, B, P), last state, last memory, gates."""
        weights = self.weights(layer, end)
        if self.training and self.weight_drop:
            weights["weight_hh"] = F.dropout(weights["weight_hh"], self.weight_drop)
        if end and reset is not None:  # backwards, a sequence ends before the step where the next one begins
            reset = torch.cat((reset[1:], torch.zeros_like(reset[:1])))
        at = layer * self.num_directions + bool(end)
        hidden, cell = self._learned()
        starts = None if hidden is None else hidden[at], None if cell is None else cell[at]
        keep: Any = self.zoneout
        if self.training and any(self.zoneout):
            sizes = (self.output_size, 0 if memory is None else self.hidden_size)
            pairs = zip(sizes, self.zoneout, strict=True)
            keep = tuple(random_mask((*x.shape[:2], size), rate, x.device) for size, rate in pairs)
        extras = reset is not None or return_gates
        path, _ = self.path(device=x.device.type, dtype=x.dtype, extras=extras, lengths=lengths is not None)
        call = weights, state, memory, bool(end), lengths, reset, starts, keep, return_gates
        if path == "compiled":
            from dolmen.nn.recurrent.function import run_compiled

            return run_compiled(self.cell, x, *call)
        if path == "graph":
            return run_in_graph(self.cell, x, weights, state, memory, bool(end), lengths)
        if path == "torch":
            return (*run_torch(self.cell, x, weights, state, memory, bool(end), lengths, self.training), {})

        def entering(x: Tensor) -> Tensor:
            into = F.linear(x, weights["weight_ih"])
            if self.layer_norm:
                into = F.layer_norm(into, into.shape[-1:], weights["scale_ih"])
            return into + weights["bias_ih"] if self.bias else into

        rounds = [getattr(self, f"mogrifier_{number}_l{layer}{end}") for number in range(self.mogrifier)]

        def mogrified(x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            x, state = recurrent_loop.mogrify(x, state, rounds)
            return entering(x), state

        into = x if rounds else entering(x)
        if path == "fused":
            from dolmen.nn.recurrent.gpu import run_fused

            return run_fused(self.cell, into, *call)
        state = state.to(into.dtype)
        memory = None if memory is None else memory.to(into.dtype)
        keep = tuple(k.to(into.dtype) if isinstance(k, Tensor) else k for k in keep)
        return recurrent_loop.run(
            self.cell, into, state, memory, weights["weight_hh"], reverse=bool(end), lengths=lengths,
            reset=None if reset is None else reset.bool(), state_start=starts[0], cell_start=starts[1],
            keep=keep, enter=mogrified if rounds else None, bias=weights["bias_hh"],
            scale=weights["scale_hh"], cell_scale=weights["cell_scale"], cell_shift=weights["cell_shift"],
            projection=weights["weight_hr"],
        )  # fmt: skip

    def path(
        self, *, device: str = "cpu", dtype: torch.dtype = torch.float32, extras: bool = False, lengths: bool = False
    ) -> tuple[str, str]:
        """Which path a call takes, under the autocast and gradient modes of this moment, and why.

        Args:
            device: where the input is.
            dtype: of the input.
            extras: it has a ``reset_mask`` or wants the gates.
            lengths: it has ``lengths``.

        Returns:
            "compiled" or "fused" (our kernels on a CPU or a GPU), "torch" (its own), "loop" (step by step) or "graph"
            (exporting), and the reason.
        """
        return choose_path(self, device=device, dtype=dtype, extras=extras, lengths=lengths)

    def explain(self, **call: Any) -> str:
        """``path`` in a sentence."""
        return ": ".join(self.path(**call))


WEIGHTS = (
    "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "scale_ih", "scale_hh", "cell_scale", "cell_shift",
)  # fmt: skip


class RNN(Recurrent):
    """The plain recurrent unit: h' = tanh(W_ih x + b_ih + W_hh h + b_hh). See ``Recurrent``.

    Args:
        nonlinearity: "tanh" or "relu".
    """

    def __init__(self, *args: Any, nonlinearity: str = "tanh", **kwargs: Any) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity {nonlinearity!r} is neither tanh nor relu")
        self.nonlinearity = nonlinearity
        super().__init__(*args, **kwargs)

    @property
    def cell(self) -> str:  # type: ignore[override]
        """``rnn_tanh`` or ``rnn_relu``."""
        return f"rnn_{self.nonlinearity}"


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997; forget gate: Gers et al., 2000). See ``Recurrent``.

    i, f, o = sigmoid(...), g = tanh(...), c' = f c + i g, h' = o tanh(c').
    """

    cell = "lstm"


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al., 2014), as torch and cuDNN define it. See ``Recurrent``.

    r, z = sigmoid(...), n = tanh(W_in x + b_in + r (W_hn h + b_hn)), h' = (1 - z) n + z h.
    """

    cell = "gru"


CELL_CLASSES: dict[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
