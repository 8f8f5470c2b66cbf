-- SPDX-License-Identifier: Apache-2.0
--
-- For wrk: asks for "/", and for every tenth request for the path given after "--", if any:
--   wrk -s mix.lua http://127.0.0.1:8080 -- "/block?us=2000"
-- Closes with one line that a script can read: requests/s, p50 and p99 in us, errors.

local plain, tenth
local n = 0

function init(args)
    plain = wrk.format("GET", "/")
    tenth = args[1] and wrk.format("GET", args[1]) or plain
end

function request()
    n = n + 1
    if n % 10 == 0 then return tenth end
    return plain
end

function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("row %.0f %.0f %.0f %d\n", summary.requests / summary.duration * 1e6,
        latency:percentile(50), latency:percentile(99),
        e.connect + e.read + e.write + e.status + e.timeout))
end
