// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// A goroutine for each connection, over the net package's sockets. Not net/http, which does far more
// for each request than any of the other servers; this parser does what theirs do: find the end of
// the headers, take the request line apart, walk the header lines for `Connection: close`, keep what
// was read beyond the request, answer in one write.

func response(status, body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
		status, len(body), body)
}

var (
	hello    = response("200 OK", "Hello, World!")
	slept    = response("200 OK", "slept")
	notFound = response("404 Not Found", "not found")

	crlf     = []byte("\r\n")
	headEnd  = []byte("\r\n\r\n")
	blockUs  = []byte("/block?us=")
	napUs    = []byte("/nap?us=")
	closeTok = []byte("close")
)

// parse takes a header block, with its last empty line, apart.
func parse(head []byte) (path []byte, keepAlive, ok bool) {
	end := bytes.Index(head, crlf)
	line := head[:end]
	first, last := bytes.IndexByte(line, ' '), bytes.LastIndexByte(line, ' ')
	if first < 0 || first == last || string(line[:first]) != "GET" ||
		!bytes.HasPrefix(line[last+1:], []byte("HTTP/1.")) {
		return nil, false, false
	}
	path, keepAlive = line[first+1:last], line[len(line)-1] != '0'
	for {
		head = head[end+2:]
		end = bytes.Index(head, crlf)
		if end == 0 {
			return path, keepAlive, true
		}
		colon := bytes.IndexByte(head[:end], ':')
		if colon < 0 {
			return nil, false, false
		}
		if colon == 10 && strings.EqualFold(string(head[:colon]), "connection") {
			keepAlive = !bytes.Contains(head[colon:end], closeTok)
		}
	}
}

func timespecOf(us []byte) syscall.Timespec {
	n, _ := strconv.ParseInt(string(us), 10, 64)
	return syscall.NsecToTimespec(n * 1000)
}

func answer(path []byte) []byte {
	if len(path) == 1 && path[0] == '/' {
		return hello
	}
	if us, ok := bytes.CutPrefix(path, blockUs); ok {
		t := timespecOf(us)
		block(&t)
		return slept
	}
	if us, ok := bytes.CutPrefix(path, napUs); ok { // the scheduler is not told
		t := timespecOf(us)
		syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
		return slept
	}
	return notFound
}

func converse(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 8192)
	filled := 0
	for {
		n, err := conn.Read(buf[filled:])
		if err != nil || n == 0 {
			return
		}
		filled += n
		pending := buf[:filled]
		for {
			end := bytes.Index(pending, headEnd)
			if end < 0 {
				break
			}
			path, keepAlive, ok := parse(pending[:end+4])
			if !ok {
				return
			}
			if _, err := conn.Write(answer(path)); err != nil || !keepAlive {
				return
			}
			pending = pending[end+4:]
		}
		filled = copy(buf, pending)
	}
}

func serve(args) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail("%v", err)
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	for {
		conn, err := listener.Accept() // TCP_NODELAY is Go's default
		if err != nil {
			fail("%v", err)
		}
		go converse(conn)
	}
}
