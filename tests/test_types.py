from __future__ import annotations

import pytest

from dolmen.types import CheckReport, Finding, UserError


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("No picture can be used: bring some.", "no picture can be used: bring some"),
        (
            "Pets/Own has 1 sentence to train on; bring 10 or more.",
            "Pets/Own has 1 sentence to train on; bring 10 or more",
        ),
        ("All words have the same tag; is --column right?", "all words have the same tag; is --column right?"),
    ],
)
def test_an_error_of_the_data_is_raised_as_errors_are_written(message: str, sentence: str) -> None:
    findings = (
        Finding(code="leak", level="leak", message="Something leaks."),
        Finding(code="bad", level="error", message=message),
        Finding(code="worse", level="error", message="Not this one."),
    )
    report = CheckReport(task="pets", source="Pets/Own", num_files=1, num_used=0, findings=findings)
    with pytest.raises(UserError) as caught:
        report.require_usable()
    assert str(caught.value) == sentence
    report.model_copy(update={"findings": findings[:1]}).require_usable()
