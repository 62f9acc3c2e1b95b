#!/bin/sh
# Installs the real parts that the tests talk to, where Debian or Ubuntu lacks them: `install.sh [node|image|browser|compiler]`.
set -eu

missing=""
need() { # need PACKAGE TEST-COMMAND...
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
has_file() { ls $1 >/dev/null 2>&1; }

if [ "${1:-all}" = node ]; then
    need nodejs node --version
    need npm npm --version
elif [ "${1:-all}" = image ]; then
    need podman podman --version
    need runc runc --version
    need mmdebstrap mmdebstrap --version
elif [ "${1:-all}" = browser ]; then
    need chromium chromium --version
elif [ "${1:-all}" = compiler ]; then # sed_scores_eval is built when it is installed
    need gcc gcc --version
    need libc6-dev has_file /usr/include/stdio.h
    need python3-dev "${PYTHON:-python3}" -c \
        'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
else
    need gir1.2-gst-rtsp-server-1.0 /usr/bin/python3 -c 'import gi; gi.require_version("GstRtspServer", "1.0")'
    need python3-gi /usr/bin/python3 -c 'import gi'
    need gir1.2-gst-plugins-base-1.0 /usr/bin/python3 -c 'import gi; gi.require_version("GstRtp", "1.0")'
    for plugins in base good bad ugly; do
        need gstreamer1.0-plugins-$plugins dpkg -s gstreamer1.0-plugins-$plugins
    done
    need gstreamer1.0-libav dpkg -s gstreamer1.0-libav
    need prometheus promtool --version
    need systemd systemd-analyze --version
    need openssl openssl version
    need iproute2 ip -V
    need ffmpeg ffmpeg -version
    need libasound2-data has_file /usr/share/alsa/alsa.conf
fi
[ -n "$missing" ] || exit 0

echo "tests: installing$missing"
if [ "$(id -u)" = 0 ]; then
    sudo=""
elif command -v sudo >/dev/null; then
    sudo=sudo
else
    echo "tests: as root, run: apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
