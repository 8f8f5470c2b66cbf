# SPDX-License-Identifier: Apache-2.0
#
# For the tests in tests/cli, which source it: a line for each case, and a server to ask.

# check NAME COMMAND...
check() {
    local name=$1
    shift
    if "$@"; then echo "ok $name"; else echo "FAIL $name"; fi
}

# Sets `address` to where the server that writes to $1 listens.
await_address() {
    local i
    for ((i = 0; i < 100; i++)); do
        address=$(sed -n 's/^listening on //p' "$1")
        [[ -n $address ]] && return
        sleep 0.1
    done
    echo "FAIL it did not begin to listen"
}
