#!/bin/sh
# Deletes files that the daemon never uses from an installed environment: `slim.sh SITE-PACKAGES cpu|cuda`.
set -eu
cd "$1"

# Headers and static libraries are only for compiling against torch, pip only for installing more.
rm -rf torch/include torch/share torch/bin/protoc* pip pip-*.dist-info
find . -name '*.a' -delete
case "$2" in
cuda) ;;
cpu)
    # PyPI's torch for x86_64 is built for CUDA and loads NVIDIA's libraries even without a GPU. Libraries that
    # are loaded only once a GPU is used, and the compiler for GPU code, can be deleted. Torch from PyTorch's CPU index
    # has neither.
    rm -rf triton triton-*.dist-info nvidia/cu*/include nvidia/*/include
    find nvidia \( -name 'libcudnn_*' -o -name 'libcusolver*' -o -name 'libnvrtc*.alt.*' -o -name 'libnvperf*' \
        -o -name 'libnvshmem_device*' -o -name 'nvshmem_*' \) -delete 2>/dev/null || true
    ;;
*)
    echo "slim.sh: ACCELERATOR is $2; it must be cpu or cuda" >&2
    exit 1
    ;;
esac
