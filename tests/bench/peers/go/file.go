// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	readBlock   = 4096
	readers     = 64
	readSamples = 200_000 // of each goroutine, the first ones
)

func aligned(n int) []byte {
	buf := make([]byte, n+readBlock)
	return buf[readBlock-int(uintptr(unsafe.Pointer(&buf[0]))%readBlock):][:n]
}

func threadCount() int {
	var st syscall.Stat_t
	if syscall.Stat("/proc/self/task", &st) != nil {
		return 0
	}
	return int(st.Nlink) - 2
}

// file: random reads of 4 KiB by 64 goroutines.
func file(a args) {
	flags := os.O_RDONLY
	if a.number("cached") == 0 {
		flags |= syscall.O_DIRECT
	}
	f, err := os.OpenFile(a["file"], flags, 0)
	if err != nil {
		fail("%v", err)
	}
	st, err := f.Stat()
	if err != nil {
		fail("%v", err)
	}
	blocks := uint64(st.Size()) / readBlock
	var stop atomic.Bool
	var all sync.WaitGroup
	samples := make([][]uint32, readers)
	reads := make([]uint64, readers)
	cpu, begin := cpuUs(), now()
	end := begin + a.number("ms")*1_000_000
	for i := range readers {
		all.Add(1)
		go func() {
			defer all.Done()
			buf := aligned(readBlock)
			ns := make([]uint32, 0, readSamples)
			x := 88172645463325252 * uint64(2*i+1)
			n := uint64(0)
			for !stop.Load() {
				x ^= x << 13
				x ^= x >> 7
				x ^= x << 17
				t := now()
				if _, err := f.ReadAt(buf, int64(x%blocks*readBlock)); err != nil {
					fail("%v", err)
				}
				if len(ns) < readSamples {
					ns = append(ns, uint32(now()-t))
				}
				n++
			}
			samples[i], reads[i] = ns, n
		}()
	}
	threads := 0
	for now() < end {
		threads = max(threads, threadCount())
		time.Sleep(20 * time.Millisecond)
	}
	stop.Store(true)
	all.Wait()
	seconds := float64(now()-begin) / 1e9
	var latencies []uint32
	total := uint64(0)
	for i := range readers {
		latencies = append(latencies, samples[i]...)
		total += reads[i]
	}
	figure("iops", float64(total)/seconds)
	figure("p50_us", percentile(latencies, 0.5)/1e3)
	figure("p99_us", percentile(latencies, 0.99)/1e3)
	figure("threads", float64(threads))
	figure("cpu_us_each", (cpuUs()-cpu)/float64(total))
}
