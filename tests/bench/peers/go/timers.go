// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync"
	"time"
)

// timers: sleepers, or timers that are set and stopped.
func timers(a args) {
	switch a["kind"] {
	case "sleep":
		sleepers(int(a.number("n")), int(a.number("rounds")))
	case "setstop":
		setAndStop(int(a.number("n")), false)
	case "atonce":
		setAndStop(int(a.number("n")), true)
	default:
		fail("unknown kind of timers")
	}
}

func sleepers(n, rounds int) {
	lateUs := make([]uint32, n*rounds)
	var all sync.WaitGroup
	begin := now() + 1_000_000_000
	for i := range n {
		all.Add(1)
		go func() {
			defer all.Done()
			chance := 88172645463325252 * uint64(2*i+1)
			step := func() uint64 {
				chance ^= chance << 13
				chance ^= chance >> 7
				chance ^= chance << 17
				return chance
			}
			time.Sleep(time.Duration(begin - now() + int64(step()%100_000_000)))
			for r := range rounds {
				ns := int64(1_000_000 + step()%99_000_000)
				due := now() + ns
				time.Sleep(time.Duration(ns))
				lateUs[i*rounds+r] = uint32((now() - due) / 1000)
			}
		}()
	}
	time.Sleep(time.Duration(begin - now()))
	before := cpuUs()
	all.Wait()
	cpu := (cpuUs() - before) / 1e6
	figure("p50_us", percentile(lateUs, 0.5))
	figure("p99_us", percentile(lateUs, 0.99))
	figure("cpu_s", cpu)
}

func setAndStop(n int, atOnce bool) {
	all := make([]*time.Timer, 0, n)
	var start int64
	stopped := 0
	stop := func(t *time.Timer) {
		if t.Stop() {
			stopped++
		}
	}
	for range 2 { // the first one warms up
		clear(all)
		all = all[:0]
		stopped = 0
		start = now()
		for i := range n {
			d := time.Hour + time.Duration(i*7919%n)*time.Microsecond
			t := time.AfterFunc(d, func() {})
			all = append(all, t)
			if atOnce {
				stop(t)
			}
		}
		if !atOnce {
			for _, t := range all {
				stop(t)
			}
		}
	}
	took := now() - start
	if stopped != n {
		fail("a timer was not stopped")
	}
	figure("ns_per_op", float64(took)/float64(n))
}
