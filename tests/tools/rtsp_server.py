#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An RTSP server for the tests, GStreamer's, on loopback.

    rtsp_server.py PORT MOUNT=PIPELINE|FILE...

Each mount point serves a GStreamer pipeline (in launch syntax, its payloader named pay0) or, given the name of an MP4
file with H.264 in it, that file at its own pace from the moment of the first client on. "clock:N:M" is a camera
that paints Unix time into its pictures (tests/tools/sl_live.c reads it), says that it gives N pictures a second and
gives M; with ":S" after it its RTP timestamps wrap around after S seconds. Prints "ready" once it listens. Needs python3-gi, gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-base and -good (Debian's names).
  --user NAME:PASSWORD   ask for these (basic authentication)
SIGUSR1 sets the clock of all "clock:" cameras 5 s forward, SIGUSR2 5 s back: what they paint and their sender reports.
"""
import signal
import sys
import threading
import time

try:
    import gi
    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer
except (ImportError, ValueError) as missing:
    print("rtsp_server.py:", missing, "(Debian: python3-gi gir1.2-gst-rtsp-server-1.0)", file=sys.stderr)
    sys.exit(77)


BITS, WIDTH, HEIGHT = 48, 768, 32
STEP_S = 5
SENDER_REPORT = 200
ahead_s = 0


def picture(ms):
    """I420, its luma the bits of the time as bars."""
    row = b"".join((b"\xeb" if ms >> (BITS - 1 - i) & 1 else b"\x10") * (WIDTH // BITS) for i in range(BITS))
    return row * HEIGHT + b"\x80" * (WIDTH * HEIGHT // 2)


def paint(source, said, given, ended):
    """Gives pictures until the source takes no more. Their times count by the rate that is said, if the two differ."""
    begin, n = time.monotonic(), 0
    while not ended.is_set():
        due = begin + n / given
        time.sleep(max(0, due - time.monotonic()))
        # It was taken when it was due, even if a busy machine gives it later; times that are not counted tell the moment.
        taken = due if said != given else time.monotonic()
        buffer = Gst.Buffer.new_wrapped(picture(int((time.time() - time.monotonic() + taken + ahead_s) * 1000)))
        buffer.pts = n * Gst.SECOND // said if said != given else int((taken - begin) * Gst.SECOND)
        if source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
            return
        n += 1


def set_clock(step_s):
    global ahead_s
    ahead_s += step_s
    return GLib.SOURCE_CONTINUE


def report_clock(pad, info):
    """Sender reports tell the time that is painted: bytes 8 to 11 of one are the NTP seconds."""
    buffer = info.get_buffer()
    data = bytearray(buffer.extract_dup(0, buffer.get_size()))
    if ahead_s == 0 or data[1] != SENDER_REPORT or pad.is_replacing:
        return Gst.PadProbeReturn.OK
    data[8:12] = (int.from_bytes(data[8:12], "big") + ahead_s).to_bytes(4, "big")
    pad.is_replacing = True
    pad.push(Gst.Buffer.new_wrapped(bytes(data)))
    pad.is_replacing = False
    return Gst.PadProbeReturn.DROP


def watch_reports(element, pad):
    if pad.get_name().startswith("send_rtcp_src"):
        pad.is_replacing = False
        pad.add_probe(Gst.PadProbeType.BUFFER, report_clock)


def find_reports(_, __, element):
    """rtpbin is added to the media's pipeline when it is prepared; its pads come later."""
    if element.get_factory() and element.get_factory().get_name() == "rtpbin":
        element.connect("pad-added", watch_reports)


def configure_clock(_, media, said, given):
    source = media.get_element().get_child_by_name("src")
    media.get_element().get_parent().connect("deep-element-added", find_reports)
    ended = threading.Event()
    media.connect("unprepared", lambda _: ended.set())
    threading.Thread(target=paint, args=(source, said, given, ended), daemon=True).start()


def launch(source):
    if source.startswith("clock:"):
        wraps = source.split(":")[3:]
        offset = " timestamp-offset=%d" % (2**32 - int(wraps[0]) * 90000) if wraps else ""
        return ("( appsrc name=src is-live=true format=time max-buffers=4 leaky-type=downstream caps=video/x-raw,"
                "format=I420,width=%d,height=%d,framerate=%s/1 ! jpegenc quality=95 ! rtpjpegpay name=pay0%s )"
                % (WIDTH, HEIGHT, source.split(":")[1], offset))
    if source.endswith(".mp4"):
        return "( filesrc location=%s ! qtdemux ! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96 )" % source
    return "( %s )" % source


def main():
    args, user = [], None
    rest = iter(sys.argv[1:])
    for arg in rest:
        if arg == "--user":
            user = next(rest)
        else:
            args.append(arg)
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(args[0])
    mounts = server.get_mount_points()
    if user:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*user.split(":", 1)), token)
        server.set_auth(auth)
    for mount in args[1:]:
        path, source = mount.split("=", 1)
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(launch(source))
        factory.set_shared(True)
        if source.startswith("clock:"):
            factory.connect("media-configure", configure_clock, *map(int, source.split(":")[1:3]))
        if user:
            factory.add_role_from_structure(Gst.Structure.from_string(
                "viewer, media.factory.access=(boolean)true, media.factory.construct=(boolean)true")[0])
        mounts.add_factory("/" + path, factory)
    if not server.attach(None):
        sys.exit("rtsp_server.py: port %s is taken" % args[0])
    GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGUSR1, set_clock, STEP_S)
    GLib.unix_signal_add(GLib.PRIORITY_HIGH, signal.SIGUSR2, set_clock, -STEP_S)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
