// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// duel is the rounds of the handoff benchmark, as tests/bench/support/duel.hpp has them: who blocks
// calls begin, wait and settle; the other calls look whenever it runs.
type duel struct {
	pipe    [2]int
	took    []uint32
	until   int64
	settled uint64
	seen    uint64
	stamp   int64
	round   atomic.Uint64
	over    atomic.Bool
}

func newDuel(rounds, ms int64) *duel {
	d := &duel{took: make([]uint32, rounds), until: math.MaxInt64}
	if ms != 0 {
		d.until = now() + ms*1e6
	}
	for i := range d.took {
		d.took[i] = 1 // touch the pages now
	}
	if err := syscall.Pipe2(d.pipe[:], syscall.O_CLOEXEC); err != nil {
		fail("pipe: %v", err)
	}
	return d
}

func (d *duel) begin() bool {
	if d.settled == uint64(len(d.took)) || now() >= d.until {
		d.over.Store(true)
		return false
	}
	d.stamp = now()
	d.round.Store(d.settled + 1)
	return true
}

// wait blocks in an announced read of a blocking descriptor.
func (d *duel) wait() uint64 {
	var number uint64
	for {
		n, _, errno := syscall.Syscall(syscall.SYS_READ, uintptr(d.pipe[0]),
			uintptr(unsafe.Pointer(&number)), 8)
		if errno == syscall.EINTR {
			continue
		}
		if n != 8 {
			fail("read: %v", errno)
		}
		return number
	}
}

func (d *duel) settle(number uint64) {
	if number != d.settled+1 {
		fail("round %d expected, %d came: a round was lost or doubled", d.settled+1, number)
	}
	d.settled++
}

func (d *duel) look() bool {
	round := d.round.Load()
	if round == d.seen {
		return false
	}
	d.took[round-1] = uint32(min(now()-d.stamp, math.MaxUint32))
	if round != d.seen+1 {
		fail("round %d expected, %d came: a round was lost or doubled", d.seen+1, round)
	}
	d.seen = round
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(d.pipe[1]),
		uintptr(unsafe.Pointer(&round)), 8)
	if n != 8 {
		fail("write: %v", errno)
	}
	syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) // lets the one just woken by
	return true
}

func (d *duel) report() {
	if d.seen != d.settled {
		fail("%d rounds seen, %d settled", d.seen, d.settled)
	}
	taken := d.took[:d.settled]
	figure("p50_ns", percentile(taken, 0.5))
	figure("p99_ns", percentile(taken, 0.99))
	figure("max_ns", percentile(taken, 1))
}

// steady: both goroutines are runnable all the time.
func (d *duel) steady() {
	var other sync.WaitGroup
	other.Add(1)
	go func() {
		defer other.Done()
		for !d.over.Load() {
			d.look()
			runtime.Gosched()
		}
	}()
	for d.begin() {
		d.settle(d.wait())
		runtime.Gosched()
	}
	other.Wait()
}

// dozing: nothing runs for a while, then the second goroutine is started and the first blocks.
func (d *duel) dozing(pause time.Duration) {
	for more := true; more; {
		time.Sleep(pause)
		var other sync.WaitGroup
		other.Add(1)
		go func() {
			defer other.Done()
			for !d.over.Load() && !d.look() {
				runtime.Gosched()
			}
		}()
		if more = d.begin(); more {
			d.settle(d.wait())
		}
		other.Wait()
	}
}

func handoff(a args) {
	runtime.GOMAXPROCS(1)
	d := newDuel(a.number("rounds"), a.number("ms"))
	if a["load"] == "dozing" {
		d.dozing(time.Duration(a.number("pause_us")) * time.Microsecond)
	} else {
		d.steady()
	}
	d.report()
}
