"""Frames of a video with their times, whatever reads it."""

import itertools
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processors.video.containers import QUARTER_TURN, jpeg, write_avi, write_mov

from dolmen.processors.video import source
from dolmen.processors.video.source import frames, of_pictures, open_video
from dolmen.processors.video.writer import VideoWriter
from dolmen.types import UserError

CLIPS = "vision/london-jamcam-clips/day"


def picture(i: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Grey that grows lighter from frame to frame."""
    return np.full((height, width, 3), 20 + 4 * i, np.uint8)


def pictures(count: int) -> list[np.ndarray]:
    return [picture(i) for i in range(count)]


def colours() -> np.ndarray:
    """A red, a green, a blue, a black and a white bar."""
    bars = np.array([(200, 40, 30), (30, 180, 50), (40, 60, 210), (0, 0, 0), (255, 255, 255)], np.uint8)
    return np.repeat(np.repeat(bars, 32, 0)[None], 64, 0)


def written(path: Path, times: list[float], height: int = 48, width: int = 64) -> Path:
    with VideoWriter(path) as writer:
        for i, time_s in enumerate(times):
            writer.add(picture(i, height, width), time_s)
    return path


def by_ffmpeg(*options: str) -> None:
    """Encode by the program ffmpeg."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", *options], check=True, stdin=subprocess.DEVNULL)


def check(path: Path, times: list[float]) -> None:
    """The frames are those that were written, each with its time."""
    read = list(frames(path))
    assert [f.time_s for f in read] == pytest.approx(times, abs=2e-3)
    assert [f.index for f in read] == list(range(len(times)))
    for i, frame in enumerate(read):
        assert frame.pixels.shape == (48, 64, 3)
        assert frame.pixels.flags.c_contiguous
        assert abs(float(frame.pixels.mean()) - picture(i).mean()) < 3


def test_what_was_written_is_read(tmp_path: Path, reader: str) -> None:
    times = [0.0, 0.04, 0.08, 0.4, 0.5]  # frames may come at any rate
    check(written(tmp_path / "v.webm", times), times)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.webm"]


def test_each_frame_has_its_own_time(tmp_path: Path, reader: str) -> None:
    check(write_avi(tmp_path / "v.avi", pictures(6), rate=4), [0.25 * i for i in range(6)])
    slower = [40] * 5 + [250] * 5 + [30_000]  # a camera at night; and the last frame stands for half a minute
    times = [0, *itertools.accumulate(d / 1000 for d in slower[:-1])]
    check(write_mov(tmp_path / "v.mov", pictures(11), slower), times)


def test_the_name_says_nothing_of_the_container(tmp_path: Path, reader: str) -> None:
    check(write_avi(tmp_path / "v.mp4", pictures(3)), [0, 0.1, 0.2])
    check(write_mov(tmp_path / "v.avi", pictures(3)), [0, 0.1, 0.2])
    check(write_avi(tmp_path / "no ending", pictures(3)), [0, 0.1, 0.2])


def test_a_gif_has_its_times(tmp_path: Path, reader: str) -> None:
    first, *others = [Image.fromarray(p) for p in pictures(4)]
    first.save(tmp_path / "v.gif", save_all=True, append_images=others, duration=[100, 300, 50, 500])
    check(tmp_path / "v.gif", [0, 0.1, 0.4, 0.45])


def test_frames_without_a_time_come_a_25th_of_a_second_apart(tmp_path: Path, reader: str) -> None:
    (tmp_path / "v.mjpeg").write_bytes(b"".join(map(jpeg, pictures(5))))
    check(tmp_path / "v.mjpeg", [0.04 * i for i in range(5)])


def test_a_recording_held_upright_is_turned_once(tmp_path: Path, reader: str) -> None:
    corner = picture(0)
    corner[:16, :16] = (220, 40, 40)
    (frame,) = frames(write_mov(tmp_path / "v.mov", [corner], matrix=QUARTER_TURN))
    assert frame.pixels.shape == (64, 48, 3)
    assert np.abs(frame.pixels.astype(int) - np.rot90(corner, -1)).mean() < 3


def test_a_frame_every_so_many_seconds(tmp_path: Path, reader: str) -> None:
    path = written(tmp_path / "v.webm", [i / 25 for i in range(50)])
    assert [f.time_s for f in frames(path, 0.5)] == pytest.approx([0, 0.52, 1.0, 1.52], abs=0.021)
    assert len(list(frames(path, 100))) == 1
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="seconds above 0"):
            frames(path, wrong)


def test_colours_are_the_same_in_full_and_in_limited_range(tmp_path: Path, reader: str) -> None:
    bars = colours()
    write_avi(tmp_path / "full.avi", [bars])  # JPEG's range is full, VP8's limited
    with VideoWriter(tmp_path / "limited.webm") as writer:
        writer.add(bars, 0.0)
    for name in ("full.avi", "limited.webm"):
        (frame,) = frames(tmp_path / name)
        assert np.abs(frame.pixels[:, 8::32].astype(int) - bars[:, 8::32]).max() <= 6, name


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("span", ["tv", "pc"])
def test_colours_are_those_that_were_encoded(tmp_path: Path, reader: str, matrix: str, span: str) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not here, which encodes")
    Image.fromarray(colours()).save(tmp_path / "bars.png")
    scaled = f"scale=out_color_matrix={matrix}:out_range={span},format=yuv444p"
    tag = {"bt601": "smpte170m", "bt709": "bt709"}[matrix]
    by_ffmpeg(
        "-i", str(tmp_path / "bars.png"), "-vf", scaled, "-colorspace", tag, "-color_range", span, "-c:v", "ffv1",
        str(tmp_path / "v.mkv"),
    )  # fmt: skip
    (frame,) = frames(tmp_path / "v.mkv")
    assert np.abs(frame.pixels.astype(int) - colours()).max() <= 4


def test_a_folder_counts_as_frames_in_natural_order(tmp_path: Path) -> None:
    for i, name in enumerate(["f1", "f2", "f10"]):
        Image.fromarray(picture(i)).convert("L" if i == 1 else "RGB").save(tmp_path / f"{name}.png")
    (tmp_path / "._f1.png").write_bytes(b"\0\5\x16\7 what a Mac keeps beside a file")
    video_frames = list(frames(tmp_path, 0.5))
    assert [(f.time_s, int(f.pixels.mean())) for f in video_frames] == [(0.0, 20), (0.5, 24), (1.0, 28)]
    assert video_frames[1].pixels.shape == (48, 64, 3)


def test_pictures_that_cannot_be_read_are_passed_over_and_named(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    video_frames = of_pictures([tmp_path / "b.png", tmp_path / "a.png", tmp_path / "gone.png"], 1.0)
    assert next(video_frames).time_s == 1.0
    with pytest.raises(UserError, match=r"2 of 3 pictures can't be read; the first: .*b\.png"):
        next(video_frames)


def test_what_is_no_video_is_said_in_a_sentence(tmp_path: Path, reader: str) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "c.txt").write_text("hello\n" * 50)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 40)
    (tmp_path / "sound.mp4").write_bytes(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + bytes(2000))
    (tmp_path / "head.avi").write_bytes(write_avi(tmp_path / "v.avi", pictures(3)).read_bytes()[:100])
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    Image.fromarray(picture(0)).save(tmp_path / "d.png")
    names = ("a.mp4", "b.mp4", "c.txt", "list.m3u8", "d.png", "empty", "gone.mp4", "page.mp4", "sound.mp4", "head.avi")
    for name in (*names, "pipe.mp4"):
        with pytest.raises(UserError, match=r"; name |name a video"):
            list(frames(tmp_path / name))


LISTS = {
    "concat": "ffconcat version 1.0\nfile private.avi\n",
    "HLS": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nprivate.avi\n#EXT-X-ENDLIST\n",
    "DASH": '<?xml version="1.0"?>\n<MPD profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">private.avi</MPD>\n',
    "SDP": "v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS)
def test_a_list_of_other_files_is_never_followed(
    tmp_path: Path, reader: str, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_avi(tmp_path / "private.avi", pictures(3))
    monkeypatch.chdir(tmp_path)
    for ending in ("avi", "mp4", "webm", "gif", "ts", "m3u8", "ffconcat", "mpd", "sdp"):
        (tmp_path / f"list.{ending}").write_text(content, newline="")
        (tmp_path / f"link.{ending}.mov").symlink_to(f"list.{ending}")
        for name in (f"list.{ending}", f"link.{ending}.mov"):
            with pytest.raises(UserError, match="a list that names other files"):
                list(frames(name))


def test_names_are_names_and_no_protocols(tmp_path: Path, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_avi(tmp_path / "private.avi", pictures(3))
    for name in ("concat:private.avi", "file:private.avi", "subfile,,start,0,end,0,,:private.avi", "img%03d.avi"):
        with pytest.raises(UserError, match="there is no file"):
            list(frames(name))
        write_avi(tmp_path / name, pictures(2))
        check(Path(name), [0, 0.1])


def test_frames_that_lie_in_another_file_are_not_fetched(tmp_path: Path, reader: str) -> None:
    write_mov(tmp_path / "private.mov", pictures(3))
    with pytest.raises(UserError, match="can't be read"):
        list(frames(write_mov(tmp_path / "v.mov", pictures(3), elsewhere=tmp_path / "private.mov")))


def test_the_demuxer_is_the_one_of_the_first_bytes(tmp_path: Path, reader: str) -> None:
    """What follows them makes FFmpeg take the file for a list, if it may choose."""
    write_avi(tmp_path / "private.avi", pictures(3))
    (tmp_path / "v.avi").write_bytes(b"RIFF\xff\xff\0\0AVI JUNK\xff\xff\0\0\n" + LISTS["DASH"].encode() * 20)
    with pytest.raises(UserError, match="can't be read"):
        list(frames(tmp_path / "v.avi"))


def test_a_header_that_promises_more_is_no_length(tmp_path: Path, reader: str) -> None:
    read = frames(write_avi(tmp_path / "v.avi", pictures(40), claimed=1000))
    assert [f.index for f in itertools.islice(read, 40)] == list(range(40))
    with pytest.raises(UserError, match=r"is cut off: 40 frames up to 4\.0 s were read, it should have 100\.0 s"):
        next(read)


def test_a_header_that_promises_less_hides_nothing(tmp_path: Path, reader: str) -> None:
    assert len(list(frames(write_avi(tmp_path / "v.avi", pictures(40), claimed=5)))) == 40


def test_a_video_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path, reader: str) -> None:
    whole = written(tmp_path / "v.webm", [i / 25 for i in range(50)], 240, 320).read_bytes()
    (tmp_path / "cut.webm").write_bytes(whole[: len(whole) // 2])
    whole = write_avi(tmp_path / "v.avi", pictures(40)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    for name in ("cut.webm", "cut.avi"):
        video_frames = frames(tmp_path / name)
        assert next(video_frames).time_s == 0
        with pytest.raises(UserError, match=r"is cut off: \d+ frames up to|is damaged in \d+ place"):
            list(video_frames)


def test_damage_in_the_middle_is_counted_and_the_rest_is_read(tmp_path: Path, reader: str) -> None:
    path = write_avi(tmp_path / "v.avi", pictures(20))
    data = bytearray(path.read_bytes())
    at = data.index(jpeg(picture(7)))
    data[at : at + 300] = bytes(300)
    path.write_bytes(data)
    read = frames(path)
    shown = list(itertools.islice(read, 19))
    with pytest.raises(UserError, match=r"v\.avi is damaged in 1 places; 19 frames were read"):
        next(read)
    assert int(shown[-1].pixels.mean()) == pytest.approx(picture(19).mean(), abs=3)
    assert shown[-1].time_s == pytest.approx(1.9)


def test_two_videos_are_read_at_once(tmp_path: Path, reader: str) -> None:
    write_avi(tmp_path / "a.avi", pictures(30))
    write_mov(tmp_path / "b.mov", pictures(30))
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda p=path: counts.append(len(list(frames(p)))))
        for path in [tmp_path / "a.avi", tmp_path / "b.mov"] * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [30] * 6


def test_memory_does_not_grow_with_the_length(tmp_path: Path, reader: str) -> None:
    """160 frames of 480 x 640 are 147 MB."""
    write_avi(tmp_path / "v.avi", [np.full((480, 640, 3), i % 200, np.uint8) for i in range(160)])
    code = """
import resource, sys
from dolmen.processors.video import source
setattr(source, sys.argv[2], lambda: None)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read = source.frames(sys.argv[1])
for _ in range(20):
    next(read)
before = peak()
print(sum(1 for _ in read), (peak() - before) // 1024)
"""
    other = {"opencv": "ffmpeg_program", "ffmpeg": "import_cv2"}[reader]
    command = [sys.executable, "-c", code, str(tmp_path / "v.avi"), other]
    rest, grown_mb = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert rest == 140
    assert grown_mb < 30


def test_who_stops_early_leaves_nothing_open(tmp_path: Path, reader: str) -> None:
    path = write_avi(tmp_path / "v.avi", [np.full((480, 640, 3), i, np.uint8) for i in range(60)])
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    read = frames(path)
    next(read)
    read.close()  # type: ignore[attr-defined]
    assert not before or len(os.listdir("/proc/self/fd")) <= len(before)


def test_what_opencv_cannot_decode_the_program_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = source.ffmpeg_program()
    if program is None:
        pytest.skip("the program ffmpeg is not here")
    path = written(tmp_path / "v.webm", [0.0, 0.1])
    monkeypatch.setattr(source, "OpenCVSource", Blind)
    check(path, [0.0, 0.1])
    monkeypatch.setattr(source, "ffmpeg_program", lambda: None)
    with pytest.raises(UserError, match="no codec for it; name a video"):
        list(frames(path))


@pytest.mark.parametrize("encoder", [("libaom-av1", "-cpu-used", "8"), ("libsvtav1",), ("librav1e",)])
def test_av1_is_read_by_the_program(tmp_path: Path, encoder: tuple[str, ...]) -> None:
    """OpenCV's build of FFmpeg lacks its decoder."""
    program = source.ffmpeg_program()
    if program is None:
        pytest.skip("the program ffmpeg is not here")
    for i in range(4):
        Image.fromarray(picture(5 * i, 128, 128)).save(tmp_path / f"{i}.png")
    try:
        by_ffmpeg("-i", str(tmp_path / "%d.png"), "-pix_fmt", "yuv420p", "-c:v", *encoder, str(tmp_path / "v.mp4"))
    except subprocess.CalledProcessError:
        pytest.skip(f"this build of ffmpeg lacks {encoder[0]}")
    read = list(frames(tmp_path / "v.mp4"))
    assert [f.time_s for f in read] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert [f.pixels.mean() for f in read] == pytest.approx([20, 40, 60, 80], abs=3)


def test_a_cover_is_no_video(tmp_path: Path, reader: str) -> None:
    """Sound with a picture of its sleeve."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not here, which encodes")
    Image.fromarray(picture(0)).save(tmp_path / "cover.png")
    by_ffmpeg(
        "-f", "lavfi", "-i", "sine=d=1", "-i", str(tmp_path / "cover.png"), "-map", "0", "-map", "1", "-c:v", "mjpeg",
        "-disposition:v:0", "attached_pic", str(tmp_path / "v.m4a"),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"no video; name a video"):
        list(frames(tmp_path / "v.m4a"))


def test_a_video_with_sound_is_read(tmp_path: Path, reader: str) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the program ffmpeg is not here, which encodes")
    for name, codec in (("v.mp4", "mpeg4"), ("v.avi", "mpeg4"), ("v.mkv", "mpeg4"), ("v.ts", "mpeg2video")):
        by_ffmpeg(
            "-f", "lavfi", "-i", "sine=d=1.3", "-f", "lavfi", "-i", "testsrc=s=176x144:r=25:d=1", "-c:v", codec, "-bf",
            "2", str(tmp_path / name),
        )  # fmt: skip
        times = [f.time_s for f in frames(tmp_path / name)]
        assert times == pytest.approx([0.04 * i for i in range(25)], abs=2e-3), name


class Blind(source.OpenCVSource):
    """A build without codecs."""

    def __init__(self, path: Path, container: str) -> None:
        raise source.UndecodableError("no codec for it")


def test_without_a_reader_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_avi(tmp_path / "v.avi", pictures(2))
    monkeypatch.setattr(source, "import_cv2", lambda: None)
    monkeypatch.setattr(source, "ffmpeg_program", lambda: None)
    with pytest.raises(
        UserError, match=r"a video needs OpenCV 4\.13 or newer here; type: pip install 'dolmen\[video\]'"
    ):
        frames(tmp_path / "v.avi")


@pytest.mark.shared_data
def test_a_real_clip(shared_data: Path, reader: str) -> None:
    clip = sorted((shared_data / CLIPS).glob("*.mp4"))[0]
    video_frames = list(itertools.islice(frames(clip), 60))
    assert {f.pixels.shape for f in video_frames} == {(288, 352, 3)}
    assert [f.time_s for f in video_frames] == pytest.approx([i / 25 for i in range(60)], abs=1e-3)


@pytest.mark.shared_data
def test_both_readers_give_the_same_pictures_of_a_real_clip(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if source.ffmpeg_program() is None:
        pytest.skip("the program ffmpeg is not here")
    clip = sorted((shared_data / CLIPS).glob("*.mp4"))[0]  # full range
    with open_video(clip) as opencv:
        monkeypatch.setattr(source, "import_cv2", lambda: None)
        with open_video(clip) as program:
            for _ in range(50):
                one, other = opencv.picture(), program.picture()
                assert one is not None
                assert other is not None
                assert np.abs(one.astype(int) - other).mean() < 1
                assert opencv.advance()
                assert program.advance()
