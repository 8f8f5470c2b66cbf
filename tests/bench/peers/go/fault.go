// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	pageBytes = 4096
	coldPages = 4096
	coldByte  = 0x5a
	pieceUs   = 8

	sysUserfaultfd      = 323
	uffdAPI             = 0xaa
	uffdioAPI           = 0xc018aa3f
	uffdioRegister      = 0xc020aa00
	registerModeMissing = 1
	madvDontneed        = 4
	madvNohugepage      = 15
)

// coldMapping is memory whose pages the page server at the other end of a socket gives late, as
// tests/support/slow_pages.hpp has it.
func coldMapping(server int) []byte {
	fd, _, errno := syscall.Syscall(sysUserfaultfd, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0, 0)
	if errno != 0 {
		fmt.Printf("skip=userfaultfd: %v\n", errno)
		os.Exit(0)
	}
	ioctl := func(what uintptr, with unsafe.Pointer) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, what, uintptr(with)); errno != 0 {
			fail("userfaultfd, ioctl: %v", errno)
		}
	}
	api := [3]uint64{uffdAPI}
	ioctl(uffdioAPI, unsafe.Pointer(&api))
	memory, err := syscall.Mmap(-1, 0, coldPages*pageBytes, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		fail("mmap: %v", err)
	}
	syscall.Madvise(memory, madvNohugepage)
	register := [4]uint64{uint64(uintptr(unsafe.Pointer(&memory[0]))), uint64(len(memory)),
		registerModeMissing}
	ioctl(uffdioRegister, unsafe.Pointer(&register))
	if err := syscall.Sendmsg(server, []byte{'d'}, syscall.UnixRights(int(fd)), nil, 0); err != nil {
		fail("no page server: %v", err)
	}
	return memory
}

// gate lets the reader through, or has it wait.
type gate struct {
	closed atomic.Bool
	mutex  sync.Mutex
}

func (g *gate) close() {
	g.mutex.Lock()
	g.closed.Store(true)
}

func (g *gate) open() {
	g.closed.Store(false)
	g.mutex.Unlock()
}

func (g *gate) pass() {
	if g.closed.Load() {
		g.mutex.Lock()
		g.mutex.Unlock()
	}
}

// kept is how fast pieces goes up with the gate open, in parts of how fast it does with it closed.
func kept(g *gate, pieces *atomic.Uint64, window time.Duration) float64 {
	const turn, settle = 60 * time.Millisecond, 15 * time.Millisecond
	rate := func() float64 {
		time.Sleep(settle)
		pieces0, start := pieces.Load(), now()
		time.Sleep(turn - settle)
		return float64(pieces.Load()-pieces0) / float64(now()-start)
	}
	var closed, open float64
	for left := window; left > 0; left -= 2 * turn {
		g.close()
		closed += rate()
		g.open()
		open += rate()
	}
	return open / closed
}

func readPages(memory []byte, g *gate, read *atomic.Uint64) {
	for {
		for i := 0; i < len(memory); i += pageBytes {
			g.pass()
			if memory[i] != coldByte {
				fail("a page came wrong")
			}
			read.Store(read.Load() + 1)
		}
		if err := syscall.Madvise(memory, madvDontneed); err != nil {
			fail("madvise: %v", err)
		}
	}
}

func computePieces(yields bool, pieces *atomic.Uint64) {
	perUs := turnsPerUs()
	for {
		spin(int(pieceUs * perUs))
		pieces.Store(pieces.Load() + 1)
		if yields {
			runtime.Gosched()
		}
	}
}

// fault: a goroutine that reads pages which are slow to come, and one that computes.
func fault(a args) {
	var read, pieces count
	var g gate
	if a.number("faults") != 0 {
		memory := coldMapping(int(a.number("server")))
		go readPages(memory, &g, &read.items)
	}
	go computePieces(a.number("yields") != 0, &pieces.items)
	window := time.Duration(a.number("ms")) * time.Millisecond
	time.Sleep(window / 5)
	read0, pieces0, start := read.items.Load(), pieces.items.Load(), now()
	time.Sleep(window)
	readN, piecesN, seconds := read.items.Load()-read0, pieces.items.Load()-pieces0,
		float64(now()-start)/1e9
	figure("compute_per_s", float64(piecesN)/seconds)
	figure("faults_per_s", float64(readN)/seconds)
	figure("kept_percent", 100*kept(&g, &pieces.items, window))
}
