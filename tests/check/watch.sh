#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `scenelog watch` for two minutes, against a real RTSP server on loopback; the long forms are `make check-live`.
set -u
: "${BUILD:?}" "${SRCDIR:?}"
[ -x /usr/bin/python3 ] || { echo "python3 is not installed" && exit 77; }
exec /usr/bin/python3 "$SRCDIR/tests/live/short.py"
