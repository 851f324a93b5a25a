"""A network that ONNX Runtime works off."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.runtime.network import Steps
from dolmen.types import Arrays

DTYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
"""Of what streams read."""


class OnnxNetwork:
    """An ONNX graph.

    Args:
        content: the graph's file.
        states: output name by the input that it becomes at the next call.
        threads: that compute; None for one a processor.
        widen: weights of eight bits are widened once, here, and not at every call.
    """

    def __init__(
        self,
        content: bytes,
        states: Mapping[str, str] | None = None,
        threads: int | None = None,
        *,
        widen: bool = False,
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # its warnings speak to those who build it
        options.intra_op_num_threads = threads or num_processors()
        options.inter_op_num_threads = 1
        if widen:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        # Threads that wait would take the processors from whoever decodes pictures, or serves.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.states = dict(states or {})
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]

    def __call__(self, inputs: Arrays) -> Arrays:
        """A batch of inputs to outputs with the same leading axis."""
        found = self.session.run(self.outputs, {name: inputs[name] for name in self.inputs})
        return dict(zip(self.outputs, found, strict=True))

    def steps(self) -> Steps:
        """A new stream."""
        if not self.states:
            raise TypeError("this network has no state to go on from")
        return OnnxSteps(self)


class OnnxSteps:
    """A stream through a graph whose first input is what is read and whose first output is what is made of it.

    States go from output to input without being copied: two sets of buffers take turns.
    """

    def __init__(self, network: OnnxNetwork) -> None:
        import onnxruntime

        value = onnxruntime.OrtValue.ortvalue_from_numpy
        self.network, self.names = network, list(network.states.values())
        self.input = next(name for name in network.inputs if name not in self.names)
        self.output = next(name for name in network.outputs if name not in network.states)
        shapes = {n: _of_one(network.inputs[n].shape) for n in self.names}
        self.buffers = [{n: value(np.zeros(shapes[n], np.float32)) for n in self.names} for _ in range(2)]
        # One step after the other is what streams do most: all that this needs is made here, once.
        fed, made = network.inputs[self.input], network.session.get_outputs()[network.outputs.index(self.output)]
        self.one, self.at = np.zeros(_of_one(fed.shape), DTYPES[fed.type]), 0
        self.one_value, self.output_value = value(self.one), value(np.zeros(_of_one(made.shape), np.float32))
        self.bindings = [self._bind(now, after) for now, after in (self.buffers, self.buffers[::-1])]

    def _bind(self, now: dict[str, Any], after: dict[str, Any]) -> Any:
        binding = self.network.session.io_binding()
        binding.bind_ortvalue_input(self.input, self.one_value)
        binding.bind_ortvalue_output(self.output, self.output_value)
        for output, name in self.network.states.items():
            binding.bind_ortvalue_input(name, now[name])
            binding.bind_ortvalue_output(output, after[name])
        return binding

    def read(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        """Take in T steps, (T,) tokens or (T, S, F) frames; (T, V) outputs, which the next call may overwrite."""
        if len(steps) == 1:
            self.one[0, 0] = steps[0]
            self.one_value.update_inplace(self.one)
            self.network.session.run_with_iobinding(self.bindings[self.at])
            self.at = 1 - self.at
            made: NDArray[np.float32] = self.output_value.numpy()[0]
            return made
        found = self.network({self.input: np.ascontiguousarray(steps[None], self.one.dtype), **self.state})
        self.state = {name: found[output] for output, name in self.network.states.items()}
        several: NDArray[np.float32] = found[self.output][0]
        return several

    def reset(self) -> None:
        """Begin anew, from a state of zeros."""
        for buffer in self.buffers[self.at].values():
            buffer.update_inplace(np.zeros(buffer.shape(), np.float32))

    @property
    def state(self) -> Arrays:
        """A copy of the state, by name."""
        return {name: np.array(buffer.numpy()) for name, buffer in self.buffers[self.at].items()}

    @state.setter
    def state(self, state: Arrays) -> None:
        for name, buffer in self.buffers[self.at].items():
            buffer.update_inplace(np.ascontiguousarray(state[name], np.float32))


def _of_one(shape: Sequence[int | str]) -> list[int]:
    """The shape of one sequence of one step."""
    return [d if isinstance(d, int) else 1 for d in shape]


def num_processors() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
