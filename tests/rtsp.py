"""A real RTSP camera for tests: GStreamer's server, run with the system's Python, which has its bindings.

    /usr/bin/python3 rtsp.py PORT [--codec h264|jpeg] [--udp]

In mid-stream it swaps its size on SIGUSR1 and stands still on SIGUSR2.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import signal
import sys
from dataclasses import dataclass
from typing import Any, Final

SIZES: Final = ((320, 240), (480, 352))
RATE: Final = 15

_H264: Final = (
    f"x264enc tune=zerolatency speed-preset=ultrafast key-int-max={RATE} ! rtph264pay config-interval=1"
)
_CODECS: Final = {"h264": _H264, "jpeg": "jpegenc ! rtpjpegpay"}
_ELEMENTS: Final = ("videotestsrc", "videoconvert", "x264enc", "jpegenc", "rtph264pay", "rtpjpegpay")


@dataclass
class Gst:
    """The bindings, which have no types."""

    base: Any
    glib: Any
    rtsp: Any
    server: Any


def load() -> Gst:
    """Load GStreamer, or exit and say what is missing."""
    gi = importlib.import_module("gi")
    for name in ("Gst", "GstRtsp", "GstRtspServer"):
        gi.require_version(name, "1.0")
    names = ("Gst", "GLib", "GstRtsp", "GstRtspServer")
    gst = Gst(*(importlib.import_module(f"gi.repository.{name}") for name in names))
    gst.base.init(None)
    missing = [name for name in _ELEMENTS if gst.base.ElementFactory.find(name) is None]
    if missing:
        sys.exit(f"GStreamer has no {', '.join(missing)}")
    return gst


def caps(size: tuple[int, int]) -> str:
    """Return a picture's size and rate as GStreamer writes them."""
    return f"video/x-raw,width={size[0]},height={size[1]},framerate={RATE}/1"


def heed(gst: Gst, pipeline: Any) -> None:  # noqa: ANN401 - the bindings have no types
    """Act on the signals, in this pipeline."""
    sizes = itertools.cycle(SIZES[::-1])

    def swap() -> bool:
        pipeline.get_by_name("size").set_property("caps", gst.base.Caps.from_string(caps(next(sizes))))
        return True

    def freeze() -> bool:
        pipeline.get_by_name("source").set_property("pattern", "smpte75")
        return True

    for number, act in ((signal.SIGUSR1, swap), (signal.SIGUSR2, freeze)):
        gst.glib.unix_signal_add(gst.glib.PRIORITY_HIGH, number, act)


def serve(gst: Gst, port: str, codec: str, *, udp: bool) -> None:
    """Serve `/live` until killed."""
    server, factory = gst.server.RTSPServer(), gst.server.RTSPMediaFactory()
    server.set_address("127.0.0.1")
    server.set_service(port)
    transport = gst.rtsp.RTSPLowerTrans
    factory.set_protocols(transport.UDP if udp else transport.TCP)
    factory.set_launch(
        f"( videotestsrc name=source is-live=true pattern=ball ! capsfilter name=size caps={caps(SIZES[0])} "
        f"! videoconvert ! video/x-raw,format=I420 ! {_CODECS[codec]} name=pay0 pt=96 )"
    )
    factory.connect("media-configure", lambda _, media: heed(gst, media.get_element()))
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    gst.glib.MainLoop().run()


def main() -> None:
    """Run the server, or see whether it could run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", nargs="?", default="0")
    parser.add_argument("--check", action="store_true", help="only tell whether all parts are there")
    parser.add_argument("--codec", choices=_CODECS, default="h264")
    parser.add_argument("--udp", action="store_true", help="refuse TCP, as some cameras do")
    wanted = parser.parse_args()
    gst = load()
    if not wanted.check:
        serve(gst, wanted.port, wanted.codec, udp=wanted.udp)


if __name__ == "__main__":
    main()
