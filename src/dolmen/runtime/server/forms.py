"""The parts of a form, in memory: nothing that people send is written to a disk, not even for a moment."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dolmen.runtime.server.limits import Refusal


@dataclass
class Part:
    """A field of a form.

    Attributes:
        name: of the field.
        is_file: whether it has the name of a file, too.
    """

    name: str = ""
    is_file: bool = False
    content: bytearray = field(default_factory=bytearray)


def parse_form(content_type: str, content: bytes, max_parts: int) -> list[Part]:
    """Take a body of multipart/form-data apart.

    Args:
        content_type: the header, with the boundary.
        content: the body.
        max_parts: parts that are read.

    Raises:
        Refusal: it is damaged, cut off, or has more parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046
        raise Refusal(400, "the form is damaged: Content-Type must name a boundary of 1 to 70 characters")
    reader = _Reader(max_parts)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin,
                "on_header_field": reader.header_name,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_part_data": reader.data,
                "on_end": reader.end,
            },
        )
        parser.write(content)
    except FormParserError:
        raise Refusal(400, "the form is damaged: a part or a boundary is not as it must be") from None
    if not reader.ended:
        raise Refusal(400, "the form is damaged: it ends before its last boundary")
    return reader.parts


class _Reader:
    def __init__(self, max_parts: int) -> None:
        self.max_parts, self.parts, self.ended = max_parts, list[Part](), False
        self.header, self.value = b"", b""

    def begin(self) -> None:
        if len(self.parts) == self.max_parts:
            raise Refusal(422, f"the form has more than {self.max_parts} parts; send less at once")
        self.parts.append(Part())

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            options = parse_options_header(self.value)[1]
            self.parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")
            self.parts[-1].is_file = b"filename" in options
        self.header, self.value = b"", b""

    def data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += data[start:end]

    def end(self) -> None:
        self.ended = True
