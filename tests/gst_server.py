#!/usr/bin/python3
"""A GStreamer RTSP server that plays one clip to each client from its start, without transcoding.

Run by `tests.rtsp.RtspServer` under Debian's /usr/bin/python3 (which has `gi`). It prints READY when it listens, and
reads commands from standard input, one a line: `stall` (media stops, RTCP and the connection go on), `resume`.
"""

import argparse
import sys
from typing import Any, TextIO

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

DEMUXERS = {".mp4": "qtdemux", ".mov": "qtdemux", ".mkv": "matroskademux"}
PAYLOADERS = {
    "h264": "h264parse ! {valve} ! rtph264pay config-interval=-1 pt=96",
    "hevc": "h265parse ! {valve} ! rtph265pay config-interval=-1 pt=96",
    "aac": "aacparse ! {valve} ! rtpmp4gpay pt=97",
    "opus": "opusparse ! {valve} ! rtpopuspay pt=97",
    "pcm_mulaw": "{valve} ! rtppcmupay pt=0",
    "pcm_alaw": "{valve} ! rtppcmapay pt=8",
}


def launch_line(arguments: argparse.Namespace) -> str:
    """The pipeline of one client, as gst-launch text."""
    demuxer = DEMUXERS[arguments.clip[arguments.clip.rindex(".") :]]
    parts = [f'filesrc location="{arguments.clip}" ! {demuxer} name=d']
    number = 0
    for kind, codec in (("video", arguments.video), ("audio", arguments.audio)):
        if codec == "none":
            continue
        chain = PAYLOADERS[codec].format(valve=f"valve name=v{number}")
        # rtsp-server takes the element of that name for the payloader; packets get lost behind the real one.
        if arguments.loss:
            chain = f"{chain} ! identity name=pay{number} drop-probability={arguments.loss}"
        else:
            chain = f"{chain} name=pay{number}"
        parts.append(f"d.{kind}_0 ! queue ! {chain}")
        number += 1
    return "( " + " ".join(parts) + " )"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("clip")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/clip")
    parser.add_argument("--video", default="none")
    parser.add_argument("--audio", default="none")
    parser.add_argument("--auth", choices=["none", "basic", "digest"], default="none")
    parser.add_argument("--user", default="user")
    parser.add_argument("--password", default="pass")
    parser.add_argument("--tls", help="PEM file with certificate and key")
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--clock", help="ntp-time-source of rtpbin: ntp, unix, running-time, clock-time")
    parser.add_argument("--stall-after", type=float, default=0.0)
    return parser.parse_args()


def main() -> None:
    """Serve until killed."""
    arguments = parse()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(arguments.port))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(launch_line(arguments))
    factory.set_shared(False)
    if arguments.clock:

        class Media(GstRtspServer.RTSPMedia):  # type: ignore[misc]
            def do_setup_rtpbin(self, rtpbin: Any) -> bool:
                rtpbin.set_property("ntp-time-source", arguments.clock)
                rtpbin.set_property("rtcp-sync-send-time", False)
                return True

        factory.set_media_gtype(Media.__gtype__)
    valves: list[Any] = []

    def set_drop(drop: bool) -> bool:
        for valve in valves:
            valve.set_property("drop", drop)
        print("STALLED" if drop else "RESUMED", flush=True)
        return False

    def configure(_factory: Any, media: Any) -> None:
        element = media.get_element()
        valves.extend(v for v in (element.get_by_name("v0"), element.get_by_name("v1")) if v)
        if arguments.stall_after:
            GLib.timeout_add(int(arguments.stall_after * 1000), set_drop, True)

    factory.connect("media-configure", configure)

    if arguments.auth != "none" or arguments.tls:
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("user", "media.factory.access", True)
        permissions.add_permission_for_role("user", "media.factory.construct", True)
        factory.set_permissions(permissions)
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth = GstRtspServer.RTSPAuth()
        if arguments.auth == "basic":
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(arguments.user, arguments.password), token)
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
        elif arguments.auth == "digest":
            auth.add_digest(arguments.user, arguments.password, token)
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        else:
            auth.set_default_token(token)
        if arguments.tls:
            auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(arguments.tls))
        server.set_auth(auth)

    server.get_mount_points().add_factory(arguments.path, factory)
    if server.attach(None) == 0:
        sys.exit(f"cannot listen on port {arguments.port}")

    def command(source: TextIO, _condition: Any) -> bool:
        line = source.readline().strip()
        if line in ("stall", "resume"):
            set_drop(line == "stall")
        return bool(line)

    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IOCondition.IN, command)
    print("READY", arguments.port, flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
