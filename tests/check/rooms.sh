#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The floor plan of ARCHITECTURE.md holds: each room includes core/ and itself, src/ the doors of the others.
set -u
cd "${SRCDIR:?}" || exit 1
failed=0

# room NAME ALLOWED: ALLOWED is an extended regular expression for what stands between the quotes.
room() {
    found=$(find "$1" -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | xargs grep -nE '^ *# *include "' | grep -vE "include \"($2)\"")
    if [ -n "$found" ]; then
        echo "$1/ includes what it must not:"
        echo "$found"
        failed=1
    fi
}

room core 'core/[a-z_0-9]+\.h'
room cpu '(core|cpu)/[a-z_0-9]+\.h|config\.h'
room cuda '(core|cuda)/[a-z_0-9]+\.cuh?|(core|cuda)/[a-z_0-9]+\.h'
for name in decode vision lm; do
    room $name "(core|$name)/[a-z_0-9]+\\.h|config\\.h"
done
room db '(core|db)/[a-z_0-9]+\.h|config\.h|schema\.h'
room src '(core|src)/[a-z_0-9]+\.h|decode/decode\.h|vision/vision\.h|lm/lm\.h|db/db\.h|cpu/cpu\.h|cuda/cuda\.h|config\.h'
exit $failed
