// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// yield: eight goroutines a processor that do nothing but Gosched.
func yield(a args) {
	tasks := 8 * int(a.number("procs"))
	figure("ns_per_op", nsEach(a.number("ms"), func(n int) int64 {
		each := (n + tasks - 1) / tasks
		var all sync.WaitGroup
		start := now()
		for range tasks {
			all.Add(1)
			go func() {
				defer all.Done()
				for range each {
					runtime.Gosched()
				}
			}()
		}
		all.Wait()
		return (now() - start) * int64(n) / int64(each*tasks)
	}))
}

// spawn: batches of a hundred through a WaitGroup.
func spawn(a args) {
	const batch = 100
	figure("ns_per_op", nsEach(a.number("ms"), func(n int) int64 {
		start := now()
		for done := 0; done < n; done += batch {
			var all sync.WaitGroup
			all.Add(batch)
			for range batch {
				go func() { all.Done() }()
			}
			all.Wait()
		}
		return now() - start
	}))
}

// pingpong: there and back through two unbuffered channels.
func pingpong(a args) { thereAndBack(a, false) }

// locked: the same from a goroutine that is locked to its thread, if locked=1.
func locked(a args) { thereAndBack(a, a.number("locked") != 0) }

func thereAndBack(a args, lock bool) {
	figure("ns_per_op", nsEach(a.number("ms"), func(n int) int64 {
		ping, pong := make(chan uint64), make(chan uint64)
		go func() {
			for value := range ping {
				pong <- value
			}
		}()
		if lock {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		start := now()
		for i := range uint64(n) {
			ping <- i
			if <-pong != i {
				fail("a value came back wrong")
			}
		}
		took := now() - start
		close(ping)
		return took
	}))
}

// mutex: lock and unlock, for writing or reading, by so many goroutines.
func mutex(a args) {
	tasks := int(a.number("tasks"))
	kind, writeEvery := a["kind"], 0
	if kind == "rwmutex_mix" {
		writeEvery = int(a.number("write_every"))
	}
	if a["blocked"] != "" {
		blockOnce(int(a.number("blocked")))
	}
	ops, cpu := 0, cpuUs()
	figure("ns_per_op", nsEach(a.number("ms"), func(n int) int64 {
		each := (n + tasks - 1) / tasks
		ops += n
		var all sync.WaitGroup
		var lock sync.Mutex
		var rwlock sync.RWMutex
		start := now()
		for t := range tasks {
			all.Add(1)
			go func() {
				defer all.Done()
				switch kind {
				case "mutex":
					for range each {
						lock.Lock()
						lock.Unlock()
					}
				case "rwmutex_read":
					for range each {
						rwlock.RLock()
						rwlock.RUnlock()
					}
				case "rwmutex_mix":
					mixed(&rwlock, each, t, writeEvery)
				}
			}()
		}
		all.Wait()
		return (now() - start) * int64(n) / int64(each*tasks)
	}))
	figure("cpu_ns_each", (cpuUs()-cpu)*1000/float64(ops))
}

// blockOnce: so many goroutines block in the kernel, all at once.
func blockOnce(tasks int) {
	var all sync.WaitGroup
	for range tasks {
		all.Add(1)
		go func() {
			defer all.Done()
			moment := syscall.NsecToTimespec(20_000_000)
			syscall.Nanosleep(&moment, nil)
		}()
	}
	all.Wait()
}

// mixed: of so many locks of task t, one in writeEvery is a writer's.
func mixed(lock *sync.RWMutex, each, t, writeEvery int) {
	untilWrite := t % writeEvery
	for range each {
		if untilWrite != 0 {
			untilWrite--
			lock.RLock()
			lock.RUnlock()
		} else {
			untilWrite = writeEvery - 1
			lock.Lock()
			lock.Unlock()
		}
	}
}

func residentBytes() float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		fail("%v", err)
	}
	pages, _ := strconv.ParseFloat(string(bytes.Fields(text)[1]), 64)
	return pages * float64(os.Getpagesize())
}

// parked: n goroutines wait for a channel.
func parked(a args) {
	n := a.number("n")
	gate := make(chan int)
	var begun atomic.Int64
	go begun.Add(1)
	for begun.Load() < 1 {
		runtime.Gosched()
	}
	before := residentBytes()
	for range n {
		go func() {
			begun.Add(1)
			<-gate
		}()
	}
	for begun.Load() < n+1 {
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // the last ones are between count and park
	figure("bytes_each", (residentBytes()-before)/float64(n))
}

// bracket: Syscall, which tells the scheduler, less RawSyscall, which does not.
func bracket(a args) {
	const calls = 500
	runtime.GOMAXPROCS(1)
	var extra []float64
	for until := now() + a.number("ms")*1e6; now() < until; {
		start := now()
		for range calls {
			syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
		}
		middle := now()
		for range calls {
			syscall.Syscall(syscall.SYS_GETPPID, 0, 0, 0)
		}
		end := now()
		extra = append(extra, float64((end-middle)-(middle-start))/calls)
	}
	figure("extra_ns", median(extra))
}
