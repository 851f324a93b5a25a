from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dolmen.report.explanation import WIDTH, explanation_picture
from dolmen.types import MachineError


@pytest.mark.parametrize(
    ("shape", "num_classes", "maps", "filters"),
    [
        ((32, 32, 3), 10, {"stem": (8, 31, 31), "stage1": (8, 3, 3)}, (24, 3, 2, 2)),
        ((28, 20, 1), 2, {"stem": (1, 3, 28, 20)}, (80, 1, 7, 7)),
        ((200, 300, 3), 1, {}, None),
    ],
)
def test_one_picture_whatever_the_network(
    tmp_path: Path,
    shape: tuple[int, ...],
    num_classes: int,
    maps: dict[str, tuple[int, ...]],
    filters: tuple[int, ...] | None,
) -> None:
    rng = np.random.default_rng(0)
    out = explanation_picture(
        tmp_path / "new" / "why.png",
        picture=rng.integers(0, 256, shape, np.uint8),
        cam=rng.random(shape[:2]),
        top=[("$x$ " * 12, 0.6), *((f"class {i}", 0.4 / num_classes) for i in range(1, num_classes))],
        maps={name: rng.random(size) for name, size in maps.items()},
        filters=None if filters is None else rng.normal(size=filters),
        title="a/very/" + "long/" * 30 + "name.png",
        sanity=0.1 if filters else None,
    )
    with Image.open(out) as image:
        assert image.width == WIDTH
        assert 600 < image.height < 1400
        assert image.getpixel((2, 2))[:3] == (255, 255, 255)
        assert np.asarray(image.convert("L"))[150:500, 60:400].std() > 10  # the picture is there
    assert [p.name for p in out.parent.iterdir()] == ["why.png"]


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError) as caught:
        explanation_picture(
            tmp_path / "file" / "why.png", picture=np.zeros((8, 8, 3), np.uint8), cam=np.zeros((8, 8)),
            top=[("a", 1.0)], maps={}, filters=None, title="a.png", sanity=None,
        )  # fmt: skip
    assert str(caught.value).startswith(f"{tmp_path}/file/why.png (0.")
    assert str(caught.value).endswith("can't be written: File exists; make room, or choose another --out")
