"""A network that ONNX Runtime computes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dolmen.runtime.network import BATCH, ArraySpec, Steps, begin, sizes_of
from dolmen.types import Arrays

DTYPES = {
    "tensor(float)": "float32", "tensor(int64)": "int64", "tensor(uint8)": "uint8", "tensor(int32)": "int32",
    "tensor(bool)": "bool", "tensor(double)": "float64",
}  # fmt: skip
"""ONNX Runtime's names of types, and numpy's."""


class OnnxNetwork:
    """An ONNX graph.

    Args:
        content: the graph's file.
        states: output name by the input that it becomes at the next call.
        threads: that compute; None for one a processor.
        dequantise_at_load: weights of eight bits become fp32 once, here, and not at every call.
    """

    def __init__(
        self,
        content: bytes,
        states: Mapping[str, str] | None = None,
        threads: int | None = None,
        *,
        dequantise_at_load: bool = False,
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # its warnings speak to those who build it
        options.intra_op_num_threads = threads or num_processors()
        options.inter_op_num_threads = 1
        if dequantise_at_load:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        # Threads that wait would take the processors from whoever decodes pictures, or serves.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Its own format, which it would take for a graph as well, is nothing that export writes.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        self.session = onnxruntime.InferenceSession(
            content,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # it would print, and try the same
        )
        self.states = dict(states or {})
        self.inputs, self.output_specs = _specs(self.session.get_inputs()), _specs(self.session.get_outputs())
        self.outputs = list(self.output_specs)

    def __call__(self, inputs: Arrays) -> Arrays:
        """A batch of inputs to outputs with the same leading axis."""
        outputs = self.session.run(self.outputs, {name: inputs[name] for name in self.inputs})
        return dict(zip(self.outputs, outputs, strict=True))

    def steps(self, start: Arrays | None = None) -> Steps:
        """One stream; ``Network.steps`` says from where."""
        if not self.states:
            raise TypeError("this network has no state to go on from")
        return OnnxSteps(self, start)


class OnnxSteps:
    """One stream through a graph: its first input is read, and its first output is given.

    States go from output to input without being copied: two sets of buffers take turns.

    Args:
        network: with a state.
        start: states to begin from and inputs that are the same in each step; ``Network.steps`` describes them.

    Raises:
        ValueError: an input that is the same in each step is missing, or an array has not the shape of its input.
    """

    def __init__(self, network: OnnxNetwork, start: Arrays | None = None) -> None:
        import onnxruntime

        value = onnxruntime.OrtValue.ortvalue_from_numpy
        self.network = network
        self.input, *_ = network.inputs
        self.output = next(name for name in network.outputs if name not in network.states)
        sizes = sizes_of(network.inputs, start or {})
        if sizes.get(BATCH, 1) != 1:
            raise ValueError(f"these steps are of one stream, and the start is of {sizes[BATCH]}")
        self.start, self.constants = begin(network.inputs, network.states, start or {}, sizes)
        self.constant_values = {name: value(array) for name, array in self.constants.items()}
        self.buffers = [{name: value(array.copy()) for name, array in self.start.items()} for _ in range(2)]
        # One step after the other is what streams do most: all that this needs is prepared here, once.
        step, output = network.inputs[self.input], network.output_specs[self.output]
        self.step, self.current = np.zeros(_one_step_shape(step.shape), step.dtype), 0
        self.step_value = value(self.step)
        self.output_value = value(np.zeros(_one_step_shape(output.shape), np.float32))
        self.bindings = [self._bind(now, after) for now, after in (self.buffers, self.buffers[::-1])]

    def _bind(self, now: dict[str, Any], after: dict[str, Any]) -> Any:
        binding = self.network.session.io_binding()
        binding.bind_ortvalue_input(self.input, self.step_value)
        binding.bind_ortvalue_output(self.output, self.output_value)
        for name, constant in self.constant_values.items():
            binding.bind_ortvalue_input(name, constant)
        for output, name in self.network.states.items():
            binding.bind_ortvalue_input(name, now[name])
            binding.bind_ortvalue_output(output, after[name])
        return binding

    def read(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        """Take in T steps, (T,) tokens or (T, S, F) frames; (T, V) outputs, which the next call may overwrite."""
        if len(steps) == 1:
            self.step[0, 0] = steps[0]
            self.step_value.update_inplace(self.step)
            self.network.session.run_with_iobinding(self.bindings[self.current])
            self.current = 1 - self.current
            outputs_of_step: NDArray[np.float32] = self.output_value.numpy()[0]
            return outputs_of_step
        batch = np.ascontiguousarray(steps[None], self.step.dtype)
        outputs = self.network({self.input: batch, **self.constants, **self.state})
        self.state = {name: outputs[output] for output, name in self.network.states.items()}
        outputs_of_steps: NDArray[np.float32] = outputs[self.output][0]
        return outputs_of_steps

    def reset(self) -> None:
        """Begin anew, from the state at the start."""
        self.state = self.start

    @property
    def state(self) -> Arrays:
        """A copy of the state, by name."""
        return {name: np.array(buffer.numpy()) for name, buffer in self.buffers[self.current].items()}

    @state.setter
    def state(self, state: Arrays) -> None:
        for name, buffer in self.buffers[self.current].items():
            buffer.update_inplace(np.ascontiguousarray(state[name], np.float32))


def _specs(values: Sequence[Any]) -> dict[str, ArraySpec]:
    """What ONNX Runtime says of inputs or outputs; a dimension without a name is called "?"."""
    return {
        v.name: ArraySpec(DTYPES.get(v.type, v.type), tuple("?" if d is None else d for d in v.shape)) for v in values
    }


def _one_step_shape(shape: Sequence[int | str]) -> list[int]:
    """The shape of one sequence of one step."""
    return [d if isinstance(d, int) else 1 for d in shape]


def num_processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
