// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	itemUs        = 8
	mostVacancies = 1 << 20
)

// vacancies tells how long places stand empty, as tests/bench/support/vacancies.hpp explains.
type vacancies struct {
	places    uint64
	left      []atomic.Int64
	tookNs    []uint32
	leavings  atomic.Uint64
	_         [64]byte
	startings atomic.Uint64
}

func (v *vacancies) leave() {
	if k := v.leavings.Add(1) - 1; k < mostVacancies {
		v.left[k].Store(now())
	}
}

func (v *vacancies) start() {
	s := v.startings.Add(1) - 1
	if s < v.places || s-v.places >= mostVacancies {
		return
	}
	if since := v.left[s-v.places].Load(); since != 0 {
		v.tookNs[s-v.places] = uint32(min(max(now()-since, 1), math.MaxUint32))
	}
}

type count struct {
	items atomic.Uint64
	_     [56]byte
}

// block is the announced nanosleep.
func block(t *syscall.Timespec) {
	syscall.Syscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(t)), 0, 0)
}

func worker(i int, done *count, v *vacancies, perUs float64, sleep syscall.Timespec) {
	chance := 88172645463325252 * uint64(2*i+1)
	v.start()
	for {
		chance ^= chance << 13
		chance ^= chance >> 7
		chance ^= chance << 17
		if (chance>>20)%10 != 0 {
			spin(int(itemUs * perUs))
		} else {
			spin(int(itemUs / 2 * perUs))
			v.leave()
			block(&sleep)
			v.start()
			spin(int(itemUs / 2 * perUs))
		}
		done.items.Store(done.items.Load() + 1)
	}
}

func handoffLoad(a args) {
	perUs := turnsPerUs()
	v := &vacancies{places: uint64(a.number("procs")), left: make([]atomic.Int64, mostVacancies),
		tookNs: make([]uint32, mostVacancies)}
	done := make([]count, a.number("workers"))
	sleep := syscall.NsecToTimespec(a.number("blk_us") * 1000)
	for i := range done {
		go worker(i, &done[i], v, perUs, sleep)
	}
	sum := func() (n float64) {
		for i := range done {
			n += float64(done[i].items.Load())
		}
		return
	}
	window := time.Duration(a.number("ms")) * time.Millisecond
	time.Sleep(window / 5)
	items, cpu, start, from := sum(), cpuUs(), now(), v.leavings.Load()
	time.Sleep(window)
	items, cpu = sum()-items, cpuUs()-cpu
	seconds := float64(now()-start) / 1e9
	var empty []uint32
	for k := from; k < min(v.leavings.Load(), mostVacancies); k++ {
		if v.tookNs[k] != 0 {
			empty = append(empty, v.tookNs[k])
		}
	}
	figure("items_per_s", items/seconds)
	figure("p50_ns", percentile(empty, 0.5))
	figure("p99_ns", percentile(empty, 0.99))
	figure("cpu_us_each", cpu/items-itemUs)
}
