#!/bin/sh
# Takes out of an installed environment what the daemon never opens: `slim.sh SITE-PACKAGES cpu|cuda`.
set -eu
cd "$1"

# Headers and static libraries are for who compiles against torch, pip is for who installs more.
rm -rf torch/include torch/share torch/bin/protoc* pip pip-*.dist-info
find . -name '*.a' -delete
case "$2" in
cuda) ;;
cpu)
    # PyPI's torch for x86_64 is built for CUDA and loads NVIDIA's libraries even where there is no GPU. What
    # those load in turn, once there is work for a GPU, and the compiler for GPU code can go. Torch from PyTorch's CPU
    # index has none of this.
    rm -rf triton triton-*.dist-info nvidia/cu*/include nvidia/*/include
    find nvidia \( -name 'libcudnn_*' -o -name 'libcusolver*' -o -name 'libnvrtc*.alt.*' -o -name 'libnvperf*' \
        -o -name 'libnvshmem_device*' -o -name 'nvshmem_*' \) -delete 2>/dev/null || true
    ;;
*)
    echo "slim.sh: ACCELERATOR is $2; it must be cpu or cuda" >&2
    exit 1
    ;;
esac
