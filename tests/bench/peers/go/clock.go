// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"slices"
	"syscall"
	"time"
)

var started = time.Now()

// now is CLOCK_MONOTONIC in nanoseconds, through the vDSO, as the other sides read it.
func now() int64 { return int64(time.Since(started)) }

// nsEach runs work(n), which does n operations and returns the nanoseconds they took: with doubling n
// until that is a fiftieth of ms, which warms up, then again and again for ms, and those are the
// figure.
func nsEach(ms int64, work func(n int) int64) float64 {
	n := 100
	for work(n) < ms*1e6/50 {
		n *= 2
	}
	took, done := int64(0), 0
	for took < ms*1e6 {
		took += work(n)
		done += n
	}
	return float64(took) / float64(done)
}

// percentile reorders its samples, as median does.
func percentile[T int64 | uint32 | float64](samples []T, q float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	slices.Sort(samples)
	return float64(samples[min(len(samples)-1, int(float64(len(samples))*q))])
}

func median[T int64 | uint32 | float64](samples []T) float64 { return percentile(samples, 0.5) }

func cpuUs() float64 {
	var use syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &use)
	us := func(t syscall.Timeval) float64 { return float64(t.Sec)*1e6 + float64(t.Usec) }
	return us(use.Utime) + us(use.Stime)
}

// spin counts n down: computation that a thread which loses its CPU still owes.
//
//go:noinline
func spin(n int) {
	for ; n > 0; n-- {
	}
}

// turnsPerUs is the fastest of many short runs, which a busy neighbour does not reach into.
func turnsPerUs() float64 {
	const turns = 50_000
	best := int64(math.MaxInt64)
	for range 200 {
		start := now()
		spin(turns)
		best = min(best, now()-start)
	}
	return turns * 1000 / float64(best)
}
