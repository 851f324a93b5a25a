"""The state of an unfinished training, in one file that is replaced in one instant, so that SIGKILL can't halve it.

safetensors holds the tensors, its header the rest as JSON: nothing in it can execute.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dolmen.files import write_whole
from dolmen.run_folder import CHECKPOINT
from dolmen.tasks.task import Objective
from dolmen.types import UserError

FILE = f"{CHECKPOINT}/state.safetensors"


def write(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replace the checkpoint of a run.

    Args:
        folder: the run's folder.
        tensors: by name; written as they are, bit for bit.
        state: JSON-able values.

    Raises:
        MachineError: the disk is full or can't be written; the checkpoint before it is whole.
    """
    # Shared or strided memory can't be stored: every tensor is its own contiguous copy.
    blob = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, {"state": json.dumps(state)})
    write_whole(folder / FILE, blob, otherwise="the checkpoint before it is whole: make room, then use --resume")


def exists(folder: Path) -> bool:
    """Whether the run has a state to go on from."""
    return (folder / FILE).is_file()


def read_state(folder: Path) -> dict[str, Any]:
    """Return the JSON part of a checkpoint; no tensor is read.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return _read(folder, with_tensors=False)[1]


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the JSON part of a checkpoint.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return _read(folder, with_tensors=True)


def _read(folder: Path, *, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = folder / FILE
    if not path.is_file():
        raise UserError(
            f"{folder} holds no checkpoint to go on from; train anew without --resume and with another --out"
        )
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
            return {k: file.get_tensor(k) for k in (file.keys() if with_tensors else ())}, state
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError, OSError) as error:
        raise UserError(f"the checkpoint {path} is damaged ({error}); train anew with another --out") from error


def pack(
    model: nn.Module, average: AveragedModel, objectives: Sequence[Objective], carried: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that a training step changes: tensors by name (not copied), and other state, JSON-able."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    tensors |= {f"carried.{k}": v for k, v in carried.items()}
    states = {}
    for prefix, optimizer in _optimizers(objectives):
        packed, states[prefix] = pack_optimizer(prefix, optimizer)
        tensors |= packed
    return tensors, states


def unpack(
    tensors: dict[str, Tensor],
    states: dict[str, Any],
    model: nn.Module,
    average: AveragedModel,
    objectives: Sequence[Objective],
) -> dict[str, Tensor]:
    """Undo ``pack``: set the networks and the optimisers, and return what is carried, on the network's device."""
    device = next(model.parameters()).device
    model.load_state_dict(part("model.", tensors))
    average.load_state_dict(part("average.", tensors))
    for prefix, optimizer in _optimizers(objectives):
        unpack_optimizer(prefix, optimizer, tensors, states[prefix])
    return {k: v.to(device, copy=True) for k, v in part("carried.", tensors).items()}


def part(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _optimizers(objectives: Sequence[Objective]) -> list[tuple[str, torch.optim.Optimizer]]:
    """The optimisers of all objectives, each with a name."""
    return [(f"optimizer.{o.name}.{i}", optimizer) for o in objectives for i, optimizer in enumerate(o.optimizers)]


def pack_optimizer(prefix: str, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimiser's state into tensors by name and plain values."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}.{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    return tensors, plain


def unpack_optimizer(
    prefix: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]
) -> None:
    """Undo ``pack_optimizer`` (the parameter groups stay as they were built)."""
    state: dict[int, dict[str, Any]] = {int(i): dict(values) for i, values in plain.items()}
    for key, value in tensors.items():
        if key.startswith(prefix + "."):
            index, name = key[len(prefix) + 1 :].split(".", 1)
            state.setdefault(int(index), {})[name] = value.clone()  # the optimiser would write into ours
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
