#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A few kills in every `make check`; `make check-slow` does thirty.
exec sh "$SRCDIR/tests/kill_resume.sh" 4 7
