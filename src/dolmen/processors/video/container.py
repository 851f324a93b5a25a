"""The container of a video file, known by its first bytes.

FFmpeg guesses the demuxer from the content, and some of its demuxers open other files: a text that begins with
``ffconcat version 1.0``, or a playlist, is a list of files whatever its name is. Here only containers that carry their
own pictures have a name, and the decoder takes the demuxer of that name.
"""

from __future__ import annotations

import re

HEAD_BYTES = 1024
"""So many bytes of a file are enough to know its container."""

_SIGNATURES = (
    ("mov", rb".{4}(ftyp|moov|mdat|free|skip|wide|pnot|styp|moof|uuid)"),
    ("matroska", rb"\x1a\x45\xdf\xa3"),
    ("avi", rb"RIFF.{4}AVI "),
    ("gif", rb"GIF8[79]a"),
    ("flv", rb"FLV\x01"),
    ("ogg", rb"OggS"),
    ("asf", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    ("mpeg", rb"\x00\x00\x01\xba"),
    ("mpegvideo", rb"\x00\x00\x01\xb3"),
    ("m4v", rb"\x00\x00\x01\xb0"),
    ("mpegts", rb"\x47.{187}\x47.{187}\x47|.{4}\x47.{191}\x47.{191}\x47|\x47.{203}\x47.{203}\x47"),
    ("ivf", rb"DKIF"),
    ("mxf", rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02"),
    ("dv", rb"\x1f\x07\x00[\x3f\xbf]"),
    ("h264", rb"\x00?\x00\x00\x01(\x67|\x27|\x09[\x10-\xf0])"),
    ("hevc", rb"\x00?\x00\x00\x01(\x40|\x42|\x46)\x01"),
    ("obu", rb"\x12\x00\x0a"),
    ("mjpeg", rb"\xff\xd8\xff"),
    ("nut", rb"nut/multimedia container\x00"),
    ("rm", rb"\.RMF"),
    ("wtv", rb"\xb7\xd8\x00\x20\x37\x49\xda\x11\xa6\x4e\x00\x07\xe9\x5e\xad\x8d"),
    ("yuv4mpegpipe", rb"YUV4MPEG2 "),
)
_PATTERNS = tuple((name, re.compile(pattern, re.DOTALL)) for name, pattern in _SIGNATURES)
_LISTS = re.compile(rb"(\xef\xbb\xbf)?\s*(ffconcat|#EXTM3U|<\?xml|<MPD|\[playlist\]|v=0\r?\n)", re.IGNORECASE)


def container_name(head: bytes) -> str | None:
    """FFmpeg's name of the demuxer for a file that begins so; None for anything that is no container of pictures.

    Args:
        head: the first ``HEAD_BYTES`` of the file.
    """
    return next((name for name, pattern in _PATTERNS if pattern.match(head)), None)


def is_list(head: bytes) -> bool:
    """Whether a file that begins so names other files, as playlists do, instead of holding pictures itself."""
    return _LISTS.match(head) is not None
