"""One process or many: the same loop. Started by ``torchrun``, several processes share each global batch.

Gradients are summed, not averaged: the loss is a sum with a weight, so dividing once by the sum of all weights gives
what one process gives with the whole batch, however unevenly the parts weigh.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0; process 0 writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def processes() -> Iterator[None]:
    """Join the other processes if ``torchrun`` started us, and leave them in the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        dist.barrier()  # who leaves while another still talks aborts it
    finally:
        dist.destroy_process_group()
        gc.collect()  # a group that something still holds would end its threads too late, and abort the process


def barrier() -> None:
    """Wait until all processes are here."""
    if world() > 1:
        dist.barrier()


def same(value: T) -> T:
    """The value of process 0, on all of them (plain Python values)."""
    if world() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[no-any-return]


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up on at least one process."""
    if world() == 1:
        return flag
    total = torch.tensor([float(flag)], device=device)
    dist.all_reduce(total)
    return bool(total.item() > 0)


def sum_of(value: Tensor) -> float:
    """The sum over the processes of () values; the same number, finite or not, on all of them."""
    total = value.detach().double()
    if world() > 1:
        dist.all_reduce(total)
    return float(total.item())


def divide_gradients(parameters: Sequence[nn.Parameter], total: Tensor, weight: float) -> Tensor:
    """Sum gradients over the processes and divide them by the summed weight (in place).

    Args:
        parameters: their ``grad`` holds the gradient of this process's summed loss.
        total: () this process's summed loss.
        weight: what it counted.

    Returns:
        () the mean loss over the global batch.
    """
    if world() > 1:  # a part of the loss may have had nothing to count here, and something elsewhere
        counted = torch.tensor([float(p.grad is not None) for p in parameters], device=total.device)
        dist.all_reduce(counted)
        for p, number in zip(parameters, counted.tolist(), strict=True):
            if p.grad is None and number:
                p.grad = torch.zeros_like(p)
    grads = [p.grad for p in parameters if p.grad is not None]
    numbers = torch.stack([total.detach().double(), torch.tensor(weight, dtype=torch.float64, device=total.device)])
    if world() > 1:
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        dist.all_reduce(numbers)
        for grad, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))
    torch._foreach_div_(grads, float(numbers[1]))
    return (numbers[0] / numbers[1]).float()


def share(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """This process's part of a global batch."""
    if world() == 1:
        return batch
    return {k: v.tensor_split(world())[rank()] for k, v in batch.items()}


def gather(value: T) -> list[T]:
    """The values of all processes, in order of rank, on all of them."""
    if world() == 1:
        return [value]
    box: list[Any] = [None] * world()
    dist.all_gather_object(box, value)
    return box
