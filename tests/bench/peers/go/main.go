// SPDX-License-Identifier: Apache-2.0

// Go's side of the benchmarks: `go BENCH key=value...` prints `figure=value` lines.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

type args map[string]string

func (a args) number(key string) int64 {
	n, err := strconv.ParseInt(a[key], 10, 64)
	if err != nil {
		fail("%s=%s is no number", key, a[key])
	}
	return n
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "go: "+format+"\n", values...)
	os.Exit(1)
}

func figure(name string, value float64) {
	fmt.Printf("%s=%.10g\n", name, value)
}

var benches = map[string]func(args){
	"bracket":      bracket,
	"chan":         channels,
	"fault":        fault,
	"file":         file,
	"handoff":      handoff,
	"handoff_load": handoffLoad,
	"http":         serve,
	"idle":         serve,
	"locked":       locked,
	"mixed":        serve,
	"mutex":        mutex,
	"neighbour":    serve,
	"parked":       parked,
	"pingpong":     pingpong,
	"select":       selects,
	"skynet":       skynet,
	"spawn":        spawn,
	"timers":       timers,
	"version":      func(args) { fmt.Printf("version=%s\n", runtime.Version()) },
	"yield":        yield,
}

func main() {
	a := args{}
	for _, arg := range os.Args[min(2, len(os.Args)):] {
		key, value, found := strings.Cut(arg, "=")
		if !found {
			fail("expected key=value, got %q", arg)
		}
		a[key] = value
	}
	if a["procs"] != "" {
		runtime.GOMAXPROCS(int(a.number("procs")))
	}
	if len(os.Args) < 2 || benches[os.Args[1]] == nil {
		fail("unknown benchmark")
	}
	benches[os.Args[1]](a)
}
