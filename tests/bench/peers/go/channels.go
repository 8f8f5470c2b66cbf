// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

// channels: a round trip, a stream through a buffer, eight senders and eight receivers, and channels
// that are made.
func channels(a args) {
	kind := a["kind"]
	if a["blocked"] != "" {
		blockOnce(int(a.number("blocked")))
	}
	if kind == "roundtrip" {
		thereAndBack(a, false)
		return
	}
	if kind == "made" {
		figure("ns_per_op", nsEach(a.number("ms"), made))
		return
	}
	sides := 1
	if kind == "many" {
		sides = 8
	}
	figure("ns_per_op", nsEach(a.number("ms"), func(n int) int64 {
		return stream(uint64(n), uint64(sides))
	}))
}

func made(n int) int64 {
	start := now()
	for i := range n {
		c := make(chan uint64, 1)
		c <- uint64(i)
		if <-c != uint64(i) {
			fail("a value came back wrong")
		}
	}
	return now() - start
}

func stream(n, sides uint64) int64 {
	c := make(chan uint64, 128)
	var senders, receivers sync.WaitGroup
	var sum atomic.Uint64
	start := now()
	for side := range sides {
		senders.Go(func() {
			for i := side; i < n; i += sides {
				c <- i
			}
		})
		receivers.Go(func() {
			own := uint64(0)
			for value := range c {
				own += value
			}
			sum.Add(own)
		})
	}
	senders.Wait()
	close(c)
	receivers.Wait()
	took := now() - start
	if sum.Load() != n*(n-1)/2 {
		fail("values were lost or doubled")
	}
	return took
}

const selectBatch = 64

// selects: over ready channels, over sixteen of which one is ready, one that waits, and one that does
// not.
func selects(a args) {
	figure("ns_per_op", nsEach(a.number("ms"), func(n int) int64 {
		switch a["kind"] {
		case "ready":
			return selectReady(n)
		case "one_of_16":
			return selectOneOf16(n)
		case "nothing":
			return selectOrNot(n, false)
		case "closed":
			return selectOrNot(n, true)
		}
		return selectWoken(uint64(n))
	}))
}

func selectOrNot(n int, closed bool) int64 {
	c := make(chan uint64)
	if closed {
		close(c)
	}
	nothing := 0
	start := now()
	for range n {
		select {
		case <-c:
		default:
			nothing++
		}
	}
	took := now() - start
	if (nothing == 0) != closed {
		fail("a select chose wrongly")
	}
	return took
}

func selectReady(n int) int64 {
	var c [4]chan uint64
	for i := range c {
		c[i] = make(chan uint64, selectBatch)
	}
	got, took := uint64(0), int64(0)
	for done := 0; done < n; done += selectBatch {
		for _, each := range c {
			for len(each) < selectBatch {
				each <- 1
			}
		}
		start := now()
		for range selectBatch {
			select {
			case v := <-c[0]:
				got += v
			case v := <-c[1]:
				got += v
			case v := <-c[2]:
				got += v
			case v := <-c[3]:
				got += v
			}
		}
		took += now() - start
	}
	return perN(took, got, n)
}

func selectOneOf16(n int) int64 {
	var c [16]chan uint64
	for i := range c {
		c[i] = make(chan uint64, selectBatch)
	}
	got, took := uint64(0), int64(0)
	for done := 0; done < n; done += selectBatch {
		for range selectBatch {
			c[15] <- 1
		}
		start := now()
		for range selectBatch {
			select {
			case v := <-c[0]:
				got += v
			case v := <-c[1]:
				got += v
			case v := <-c[2]:
				got += v
			case v := <-c[3]:
				got += v
			case v := <-c[4]:
				got += v
			case v := <-c[5]:
				got += v
			case v := <-c[6]:
				got += v
			case v := <-c[7]:
				got += v
			case v := <-c[8]:
				got += v
			case v := <-c[9]:
				got += v
			case v := <-c[10]:
				got += v
			case v := <-c[11]:
				got += v
			case v := <-c[12]:
				got += v
			case v := <-c[13]:
				got += v
			case v := <-c[14]:
				got += v
			case v := <-c[15]:
				got += v
			}
		}
		took += now() - start
	}
	return perN(took, got, n)
}

// perN: whole batches were run, of n asked for.
func perN(took int64, got uint64, n int) int64 {
	if got < uint64(n) {
		fail("a select received nothing")
	}
	batches := (n + selectBatch - 1) / selectBatch
	return took * int64(n) / int64(batches*selectBatch)
}

func selectWoken(n uint64) int64 {
	var c [4]chan uint64
	for i := range c {
		c[i] = make(chan uint64)
	}
	answer := make(chan uint64)
	go func() {
		for range n {
			var value uint64
			select {
			case value = <-c[0]:
			case value = <-c[1]:
			case value = <-c[2]:
			case value = <-c[3]:
			}
			answer <- value
		}
	}()
	start := now()
	for i := range n {
		c[i%4] <- i
		if <-answer != i {
			fail("a value came back wrong")
		}
	}
	return now() - start
}

// skynet: a tree of a million goroutines that sum their numbers.
func skynet(a args) {
	runtime.GOMAXPROCS(int(a.number("procs")))
	const leaves = 1_000_000
	result := make(chan int64)
	start := now()
	go skynetNode(result, 0, leaves)
	if <-result != leaves*(leaves-1)/2 {
		fail("the sum is wrong")
	}
	figure("ms", float64(now()-start)/1e6)
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		fail("%v", err)
	}
	figure("rss_mb", float64(use.Maxrss)*1024/1e6)
}

func skynetNode(parent chan int64, first, size int64) {
	if size == 1 {
		parent <- first
		return
	}
	own := make(chan int64)
	each := size / 10
	for i := range int64(10) {
		go skynetNode(own, first+i*each, each)
	}
	sum := int64(0)
	for range 10 {
		sum += <-own
	}
	parent <- sum
}
