"""Objects followed from frame to frame: which box of this frame is the object of that box a moment ago.

Boxes are matched with where each object should be by now: a Kalman filter of constant velocity predicts it, the
overlap of boxes says how well it fits. Sure boxes are matched first, then doubtful ones with the objects that are left:
what is half hidden is found with a low score, and would be lost otherwise (ByteTrack, Zhang et al., 2022). All times
are seconds, never counts of frames, so that frames may come at any rate, and some may be missing.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dolmen.predictions import Boxes
from dolmen.types import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Standard deviations as shares of the object's side, the square root of its area.
MEASUREMENT = 0.05
"""The error of a detected box."""
FIRST_SPEED = 3.0
"""The speed of what was detected once, a second."""
CHANGE_OF_SPEED = 1.5
"""How its speed changes, a square root of a second."""
CHANGE_OF_SIZE = 0.5
"""How its width and height change, a square root of a second."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tracks:
    """T objects that are followed. It indexes like an array.

    Attributes:
        ids: (T,) int64 from 1; 0 for what is not confirmed yet.
        labels: (T,) int64, indices into the names of classes.
        hits: (T,) int64, how often it was seen.
        seen_s: (T,) when it was seen last.
        centres: (T, 2) where it is, x and y in pixels, at the time of the frame that came last.
        speeds: (T, 2) pixels a second.
        sizes: (T, 2) width and height in pixels.
        doubts: (T, 4) variances of centre, of centre and speed together, of speed, and of size, in units of the side.
    """

    ids: Ints
    labels: Ints
    hits: Ints
    seen_s: Floats
    centres: Floats
    speeds: Floats
    sizes: Floats
    doubts: Floats

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Tracks:
        """Return some of them: a mask (T,) bool, or indices."""
        return Tracks(*(getattr(self, f.name)[index] for f in dataclasses.fields(self)))

    def __add__(self, other: Tracks) -> Tracks:
        """Return these, then those."""
        names = [f.name for f in dataclasses.fields(self)]
        return Tracks(*(np.concatenate([getattr(self, n), getattr(other, n)]) for n in names))

    @property
    def boxes_xyxy(self) -> Floats:
        """(T, 4) where they are thought to be."""
        return np.concatenate([self.centres - self.sizes / 2, self.centres + self.sizes / 2], 1)

    @classmethod
    def begun(cls, boxes_xyxy: Floats, labels: Ints, time_s: float) -> Tracks:
        """Tracks of what was seen for the first time."""
        n = len(labels)
        return cls(
            ids=np.zeros(n, np.int64),
            labels=labels.astype(np.int64),
            hits=np.ones(n, np.int64),
            seen_s=np.full(n, time_s),
            centres=(boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2,
            speeds=np.zeros((n, 2)),
            sizes=np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 1e-3),
            doubts=np.tile([MEASUREMENT**2, 0.0, FIRST_SPEED**2, MEASUREMENT**2], (n, 1)),
        )

    def moved(self, dt: float) -> Tracks:
        """The tracks predicted ``dt`` seconds later."""
        place, covariance, speed, size = self.doubts.T
        noise = CHANGE_OF_SPEED**2
        doubts = np.stack(
            [
                place + 2 * dt * covariance + dt**2 * speed + noise * dt**3 / 3,
                covariance + dt * speed + noise * dt**2 / 2,
                speed + noise * dt,
                size + CHANGE_OF_SIZE**2 * dt,
            ],
            1,
        )
        return dataclasses.replace(self, centres=self.centres + dt * self.speeds, doubts=doubts)

    def seen(self, boxes_xyxy: Floats, time_s: float) -> Tracks:
        """The tracks corrected by one box for each, where it was detected now."""
        new = Tracks.begun(boxes_xyxy, self.labels, time_s)
        place, covariance, speed, size = self.doubts.T
        gain, gain_speed, gain_size = (
            v / (w + MEASUREMENT**2) for v, w in ((place, place), (covariance, place), (size, size))
        )
        off = new.centres - self.centres
        return dataclasses.replace(
            self,
            hits=self.hits + 1,
            seen_s=new.seen_s,
            centres=self.centres + gain[:, None] * off,
            speeds=self.speeds + gain_speed[:, None] * off,
            sizes=self.sizes + gain_size[:, None] * (new.sizes - self.sizes),
            doubts=np.stack(
                [(1 - gain) * place, (1 - gain) * covariance, speed - gain_speed * covariance, (1 - gain_size) * size],
                1,
            ),
        )


NONE = Tracks.begun(np.zeros((0, 4)), np.zeros(0, np.int64), 0.0)


class Tracker:
    """Follows objects. What it holds is bounded by the boxes of the last ``keep_s``.

    Args:
        sure: score from which on a box may begin a track; one for all classes, or one a class.
        doubtful: score from which on a box may keep a track; likewise.
        keep_s: seconds that an object may be out of sight and still be the same.
        confirm: an object gets its number when it was seen so often in a row.
        overlap: intersection over union with the predicted place from which on a box may be the object.
    """

    def __init__(
        self,
        *,
        sure: ArrayLike = 0.5,
        doubtful: ArrayLike = 0.1,
        keep_s: float = 1.0,
        confirm: int = 2,
        overlap: float = 0.2,
    ) -> None:
        self.sure, self.doubtful = np.asarray(sure, np.float64), np.asarray(doubtful, np.float64)
        self.keep_s, self.confirm, self.overlap = keep_s, confirm, overlap
        self.reset()

    def reset(self) -> None:
        """Forget all; numbers begin at 1 again."""
        self.tracks, self.time_s, self.num_objects = NONE, float("-inf"), 0

    def update(self, boxes: Boxes, time_s: float) -> Boxes:
        """Take in the boxes of the next frame.

        Args:
            boxes: with doubtful ones, if there are to be two stages.
            time_s: of the frame.

        Returns:
            Those that belong to a confirmed object, in their order, with ``ids`` and ``time_s``; an id is never used
            twice.

        Raises:
            UserError: the frame is older than the one before.
        """
        if not time_s >= self.time_s:
            raise UserError(
                f"a frame of {time_s:g} s came after one of {self.time_s:g} s; give frames in their order, or reset"
            )
        places, labels = boxes.boxes_xyxy.astype(np.float64), boxes.labels
        sure, doubtful = (limit[labels] if limit.ndim else limit for limit in (self.sure, self.doubtful))
        usable = np.isfinite(places).all(1) & (places[:, 2:] > places[:, :2]).all(1)
        strong = np.flatnonzero(usable & (boxes.scores >= sure))
        weak = np.flatnonzero(usable & (boxes.scores >= doubtful) & (boxes.scores < sure))

        tracks = self.tracks[time_s - self.tracks.seen_s <= self.keep_s]
        before = self.time_s
        if len(tracks):
            tracks = tracks.moved(time_s - before)
        chosen = np.full(len(tracks), -1)  # the box of each track
        fits = overlaps(tracks.boxes_xyxy, places) * (tracks.labels[:, None] == labels)
        fits[fits < self.overlap] = 0
        confirmed = tracks.ids > 0
        in_sight = tracks.seen_s >= before
        # What is out of sight is taken up again by sure boxes only, and what is new waits for what is known.
        stages = ((confirmed, strong), (confirmed & in_sight, weak), (~confirmed, strong), (~confirmed, weak))
        for allowed, candidates in stages:
            rows = np.flatnonzero(allowed & (chosen < 0))
            left = candidates[~np.isin(candidates, chosen)]
            for row, column in assign(fits[np.ix_(rows, left)]):
                chosen[rows[row]] = left[column]

        met = chosen >= 0
        followed = tracks[met].seen(places[chosen[met]], time_s)
        due = (followed.ids == 0) & (followed.hits >= self.confirm)
        followed.ids[due] = self.num_objects + 1 + np.arange(due.sum())
        self.num_objects += int(due.sum())
        fresh = strong[~np.isin(strong, chosen)]
        begun = Tracks.begun(places[fresh], labels[fresh], time_s)
        if self.confirm <= 1:
            begun.ids[:] = self.num_objects + 1 + np.arange(len(fresh))
            self.num_objects += len(fresh)
        self.tracks, self.time_s = tracks[~met & confirmed] + followed + begun, time_s

        ids = np.zeros(len(boxes), np.int64)
        ids[chosen[met]], ids[fresh] = followed.ids, begun.ids
        kept = np.flatnonzero(ids)
        return dataclasses.replace(boxes[kept], ids=ids[kept], time_s=time_s)

    def followed(self) -> Ints:
        """(n,) the ids of the objects that are in sight, or were ``keep_s`` ago or less."""
        return self.tracks.ids[self.tracks.ids > 0]

    def save(self) -> dict[str, Any]:
        """All that ``restore`` needs to go on exactly here, as plain values."""
        columns = {f.name: getattr(self.tracks, f.name).tolist() for f in dataclasses.fields(Tracks)}
        time_s = self.time_s if np.isfinite(self.time_s) else None
        return {"time_s": time_s, "num_objects": self.num_objects, "tracks": columns}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on where ``save`` was called.

        Raises:
            ValueError, KeyError, TypeError: it is not what ``save`` gave; nothing has changed.
        """
        columns = {}
        for f in dataclasses.fields(Tracks):
            like: NDArray[Any] = getattr(NONE, f.name)
            columns[f.name] = np.asarray(saved["tracks"][f.name], like.dtype).reshape(-1, *like.shape[1:])
        if len({len(column) for column in columns.values()}) > 1:
            raise ValueError("its tracks are damaged")
        time_s, number = saved["time_s"], int(saved["num_objects"])
        self.time_s = float("-inf") if time_s is None else float(time_s)
        self.tracks, self.num_objects = Tracks(**columns), number


def overlaps(a_xyxy: Floats, b_xyxy: Floats) -> Floats:
    """(N, 4) and (M, 4) boxes -> (N, M) intersection over union."""
    low = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    common = np.maximum(high - low, 0).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a_xyxy, b_xyxy))
    return np.asarray(common / np.maximum(area_a[:, None] + area_b[None] - common, 1e-9), np.float64)


def assign(gains: Floats) -> list[tuple[int, int]]:
    """Pair rows with columns so that the sum of the gains is the largest that there can be.

    It is exact: taking the best pair first leaves objects without their boxes where a crowd stands close together.
    Most pairs are nobody else's and cost nothing; shortest augmenting paths (Jonker & Volgenant, 1987) solve the rest.

    Args:
        gains: (N, M), 0 where two must not be paired.
    """
    linked = gains > 0
    alone = linked & (linked.sum(1) == 1)[:, None] & (linked.sum(0) == 1)[None]
    pairs = [(int(r), int(c)) for r, c in np.argwhere(alone)]
    linked &= ~alone
    rows, columns = np.flatnonzero(linked.any(1)), np.flatnonzero(linked.any(0))
    if len(rows):
        crowd = gains[np.ix_(rows, columns)]
        matches = _paths(crowd) if len(rows) <= len(columns) else [(r, c) for c, r in _paths(crowd.T)]
        pairs += [(int(rows[r]), int(columns[c])) for r, c in matches if crowd[r, c] > 0]
    return pairs


def _paths(gains: Floats) -> list[tuple[int, int]]:
    """(N, M) with N <= M -> N pairs; one row after the other takes a column, and those in its way move on."""
    costs = gains.max() - gains
    n, m = costs.shape
    row_price, column_price = np.zeros(n), np.zeros(m)
    owner, taken = np.full(m, -1), np.full(n, -1)
    for new in range(n):
        distance, came_from, done = np.full(m, np.inf), np.full(m, -1), np.zeros(m, np.bool_)
        row, length = new, 0.0
        while True:
            through = length + costs[row] - row_price[row] - column_price
            shorter = ~done & (through < distance)
            distance[shorter], came_from[shorter] = through[shorter], row
            column = int(np.where(done, np.inf, distance).argmin())
            length = float(distance[column])
            if owner[column] < 0:
                break
            done[column] = True
            row = int(owner[column])
        row_price[new] += length
        passed = np.flatnonzero(done)
        row_price[owner[passed]] += length - distance[passed]
        column_price[passed] -= length - distance[passed]
        row = -1
        while row != new:  # back along the path: each row hands its column to the one before
            row = int(came_from[column])
            owner[column], taken[row], column = row, column, int(taken[row])
    return [(int(owner[c]), c) for c in range(m) if owner[c] >= 0]
