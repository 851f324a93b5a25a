"""Which options may come from outside is said on each of them, and a file's name never may."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, FilePath

from dolmen.catalogue import load_predictor
from dolmen.runtime.options import LocalPath, NotServed, Served, is_path
from dolmen.runtime.predictor import Predictor
from dolmen.runtime.server.inputs import check_options
from dolmen.runtime.server.limits import Refusal
from dolmen.runtime.server.served import served_options


class Options(BaseModel):
    beam: Annotated[int, Served(maximum=10)] = Field(1, ge=1, le=1000)
    words: Annotated[tuple[str, ...], Served()] = ()
    secret: int = 0
    file: LocalPath | None = None
    gallery: Annotated[LocalPath | None, NotServed("send pictures instead")] = None


def test_only_what_is_marked_is_served() -> None:
    allowed = served_options(Options)
    assert set(allowed.model_fields) == {"beam", "words"}
    schema = allowed.model_json_schema()["properties"]
    assert (schema["beam"]["minimum"], schema["beam"]["maximum"]) == (1, 10)
    assert check_options({"beam": 10, "words": ["a"]}, Options) == {"beam": 10, "words": ("a",)}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("secret", "the option secret is not served; the options of this model: beam, words"),
        ("file", "the option file names a file and is not served; the options of this model: beam, words"),
        ("gallery", "the option gallery names a file and is not served; send pictures instead"),
        ("other", "there is no option 'other'; the options of this model: beam, words"),
    ],
)
def test_what_is_not_served_is_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        check_options({name: "x"}, Options)
    assert (refused.value.status, refused.value.sentence) == (422, sentence)


@pytest.mark.parametrize(
    "annotation",
    [
        LocalPath,
        LocalPath | None,
        tuple[LocalPath, ...],
        dict[str, LocalPath | None],
        Path,
        FilePath,
        list[Path] | None,
    ],
)
@pytest.mark.parametrize("place", ["Options", "Streaming", "Watching"])
def test_a_file_that_is_marked_as_served_is_refused_when_the_class_is_made(annotation: Any, place: str) -> None:
    body = {"__annotations__": {"gallery": Annotated[annotation, Served()]}, "__module__": __name__}
    marked = type(BaseModel)("Marked", (BaseModel,), body)
    with pytest.raises(TypeError, match=r"Marked\.gallery names a file, and clients of a server may never name one"):
        type(Predictor)("Careless", (Predictor,), {place: marked})
    with pytest.raises(TypeError, match="names a file"):
        served_options(marked)


@pytest.mark.parametrize("annotation", [str, str | None, tuple[str, ...], Annotated[int, Field(ge=0)]])
def test_what_is_no_file_may_be_marked(annotation: Any) -> None:
    body = {"__annotations__": {"word": Annotated[annotation, Served()]}, "__module__": __name__}
    marked = type(BaseModel)("Marked", (BaseModel,), body)
    assert list(served_options(marked).model_fields) == ["word"]


SERVED = {
    "image-classification": ([], []),
    "object-detection": (["threshold"], ["threshold", "line", "zone"]),
    "text-generation": (["length", "temperature", "top_k", "top_p", "repetition_penalty", "stop", "seed"], []),
    "token-classification": (["n_best"], []),
    "speech-recognition": (
        ["beam", "word_bonus", "hot", "command", "reject", "threshold", "n_best", "silence_s", "longest_s"],
        [
            "beam", "word_bonus", "hot", "command", "reject", "threshold", "n_best", "silence_s", "longest_s",
            "partial",
        ],
    ),
}  # fmt: skip
FILES = {
    "image-classification": set[str](),
    "object-detection": {"out"},
    "text-generation": {"state"},
    "token-classification": set[str](),
    "speech-recognition": {"lm", "lm_out", "commands"},
}


@pytest.mark.parametrize("task", SERVED)
def test_options_of_the_tasks(task: str) -> None:
    predictor = load_predictor(task)
    served = [list(served_options(o).model_fields) for o in (predictor.Options, predictor.Streaming)]
    assert tuple(served) == SERVED[task]
    fields = predictor.Options.model_fields | predictor.Watching.model_fields
    assert {name for name, field in fields.items() if is_path(field)} == FILES[task]
