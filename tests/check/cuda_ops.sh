#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every operation of the GPU against the CPU's. Exits 77 where there is no GPU, or where scenelog was built without CUDA.
# Run by `make check` with BUILD (the folder of ./scenelog) and SRCDIR.
set -u
: "${BUILD:?}"
tool=$BUILD/build/tests/tools/cuda-ops
"$tool" --device cuda >"$BUILD/build/tests/log/cuda_ops.cases" 2>&1
status=$?
grep -v '^ok ' "$BUILD/build/tests/log/cuda_ops.cases"
exit $status
