#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs each test program or script given, from the source folder, with a time limit; prints the output of those that
# fail, and as the last line "N passed, N failed". Exit status 77 means that a test could not run here: neither.
# Environment: BUILD (folder of ./scenelog), SRCDIR, both absolute; TEST_SECONDS [300], the limit for each.
set -u

: "${BUILD:?}" "${SRCDIR:?}"
export BUILD SRCDIR
logs=$BUILD/build/tests/log
mkdir -p "$logs"
cd "$SRCDIR" || exit 1

passed=0 failed=0
for test; do
    name=$(basename "$test")
    timeout "${TEST_SECONDS:-300}" "$test" >"$logs/$name.log" 2>&1 </dev/null
    status=$?
    case $status in
    0) passed=$((passed + 1)) && echo "PASS $name" ;;
    77) echo "SKIP $name: $(tail -n 1 "$logs/$name.log")" ;;
    *)
        failed=$((failed + 1))
        [ $status != 124 ] || echo "time limit exceeded" >>"$logs/$name.log"
        echo "FAIL $name (status $status)"
        sed 's/^/    /' "$logs/$name.log"
        ;;
    esac
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
