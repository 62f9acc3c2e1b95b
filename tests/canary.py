"""URLs with a secret in every place where cameras and people put one. `{}` stands for the secret."""

from __future__ import annotations

CANARY = "c4naryX"

WELL_FORMED = [
    "rtsp://user:{}@127.0.0.1:9/x",
    "rtsp://{}@127.0.0.1:9/x",
    "rtsp://{}:x@127.0.0.1:9/x",
    "rtsp://user:a@{}@127.0.0.1:9/x",
    "rtsp://user:a:{}@127.0.0.1:9/x",
    "rtsp://127.0.0.1:9/user=admin_password={}_channel=1_stream=0.sdp?real_stream",
    "rtsp://127.0.0.1:9/user=admin&password={}&channel=1",
    "rtsp://127.0.0.1:9/live/{}",
    "rtsp://127.0.0.1:9/{}?enableSrtp",
    "rtsps://127.0.0.1:9/cam/realmonitor?channel=1&subtype=0&Pwd={}",
    "rtmp://127.0.0.1:9/live/{}",
    "rtmp://127.0.0.1:9/bcs/channel0_main.bcs?channel=0&stream=0&user=admin&password={}",
    "http://127.0.0.1:9/live/someone/{}/1234.ts",
    "http://127.0.0.1:9/index.m3u8?loginpas={}",
    "http://127.0.0.1:9/index.m3u8?{}",
    "http://127.0.0.1:9/index.m3u8?a=1;TOKEN={};b=2",
    "http://127.0.0.1:9/index.m3u8?channel={}",
    "http://127.0.0.1:9/index.m3u8#{}",
    "http://127.0.0.1:9/{}/index.m3u8",
    "https://user:{}@127.0.0.1:9/clip.mp4",
]
MALFORMED = [
    "rtsp://user:12/34{}@127.0.0.1:9/x",
    "rtsp://user:{}/56@127.0.0.1:9/x",
    "rtsp://user:pa?ss{}@127.0.0.1:9/x",
    "rtsp://user:pa#{}@127.0.0.1:9/x",
    "rtsp://user:pa@{}/56@127.0.0.1:9/x",
    "rtsp://user/{}@127.0.0.1:9/x",
    "rtsp://{}/us:er@127.0.0.1:9/x",
    "rtsp://user:{}/x",
    "rtsp://user:{}:127.0.0.1:9/x",
    "rtsp://user:{}@",
    "rtsp://user:{}@127.0.0.1:port/x",
    "rtsp://user:{}@127.0.0.1:99999/x",
    "rtsp://user:{}@[::1/x",
    "rtsp:///user:{}@127.0.0.1/x",
    "rtsp:/user:{}@127.0.0.1/x",
    "rtsp//user:{}@127.0.0.1/x",
    "//user:{}@127.0.0.1/x",
    "user:{}@127.0.0.1/x",
    "user:12/34{}@127.0.0.1/x",
    "rtsp://rtsp://user:{}@127.0.0.1/x",
    ' "rtsp://user:{}@127.0.0.1/x"',
    "cache:http://user:{}@127.0.0.1/x",
    "192.168.1.1/user=admin_password={}_channel=1.sdp",
    "rtsp:/192.168.1.1/x?password={}",
]
NASTY = f"{CANARY}/?#@:%& \"'é{CANARY}"
"""A password that breaks every URL in which it stands as it is."""
