// Evergreen: small work in Go on one processor, the peer of `micro`.
// SPDX-License-Identifier: MIT
//
// usage: go-micro TEST N, and one line of JSON, per operation; status 2 for a test it does not have.

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const batch = 1000
const live = 1_000_000

func cpuTime() float64 {
	var time syscall.Timespec
	const processClock = 2
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, processClock, uintptr(unsafe.Pointer(&time)), 0)
	return float64(time.Nano())
}

func resident() float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		fail(1, err.Error())
	}
	pages, _ := strconv.ParseFloat(strings.Fields(string(text))[1], 64)
	return pages * float64(os.Getpagesize())
}

func fail(status int, text string) {
	fmt.Fprintln(os.Stderr, "go-micro:", text)
	os.Exit(status)
}

type measurement struct {
	wall        time.Time
	cpu, memory float64
}

func begin() measurement {
	return measurement{memory: resident(), cpu: cpuTime(), wall: time.Now()}
}

func report(n int, wall, cpu, memory float64) {
	count := float64(n)
	fmt.Printf("{\"n\":%d,\"ns\":%.2f,\"cpu_ns\":%.2f,\"rss_bytes\":%.2f}\n", n, wall/count, cpu/count, memory/count)
}

func (m measurement) end(n int) {
	wall := float64(time.Since(m.wall))
	cpu := cpuTime() - m.cpu
	report(n, wall, cpu, resident()-m.memory)
}

func spawnJoin(n int) {
	var group sync.WaitGroup
	round := func(size int) {
		group.Add(size)
		for i := 0; i < size; i++ {
			go func() { group.Done() }()
		}
		group.Wait()
	}
	round(batch)
	m := begin()
	for left := n; left > 0; left -= batch {
		if left < batch {
			round(left)
		} else {
			round(batch)
		}
	}
	m.end(n)
}

func spawnJoinSeq(n int) {
	done := make(chan struct{})
	m := begin()
	for i := 0; i < n; i++ {
		go func() { done <- struct{}{} }()
		<-done
	}
	m.end(n)
}

func switchYield(n int) {
	var group sync.WaitGroup
	each := (n + batch - 1) / batch
	round := func(each int) {
		group.Add(batch)
		for i := 0; i < batch; i++ {
			go func() {
				for k := 0; k < each; k++ {
					runtime.Gosched()
				}
				group.Done()
			}()
		}
		group.Wait()
	}
	round(1)
	m := begin()
	round(each)
	m.end(each * batch)
}

func sleepers(n int) {
	var group sync.WaitGroup
	m := begin()
	deadline := m.wall.Add(time.Second + time.Duration(n)*10*time.Microsecond)
	group.Add(n)
	for i := 0; i < n; i++ {
		go func() {
			time.Sleep(time.Until(deadline))
			group.Done()
		}()
	}
	runtime.Gosched() // the queue is FIFO: when this returns all have run and sleep
	made := time.Since(m.wall)
	memory := resident() - m.memory
	if time.Now().After(deadline) {
		fail(1, "creating took longer than the sleep")
	}
	group.Wait()
	woken := time.Since(deadline)
	report(n, float64(made+woken), cpuTime()-m.cpu, memory)
}

func timers(n int) {
	m := begin()
	for i := 0; i < n; i++ {
		time.AfterFunc(5*time.Second, func() {}).Stop()
	}
	m.end(n)
}

// A million live timers of one hour, one begun 100 ns after the other; an operation cancels the oldest and starts a
// new one.
func timersChurn(n int) {
	start := func(i int) *time.Timer {
		return time.AfterFunc(time.Hour+time.Duration(i)*100, func() {})
	}
	all := make([]*time.Timer, live)
	for i := range all {
		all[i] = start(i)
	}
	m := begin()
	for i := 0; i < n; i++ {
		all[i%live].Stop()
		all[i%live] = start(live + i)
	}
	m.end(n)
	runtime.KeepAlive(all)
}

func pass(n int, numbers chan int) {
	m := begin()
	go func() {
		for i := 0; i < n; i++ {
			numbers <- i
		}
		close(numbers)
	}()
	sum := 0
	for number := range numbers {
		sum += number
	}
	m.end(n)
	if sum != n*(n-1)/2 {
		fail(1, "items were lost")
	}
}

func channel(n int) { pass(n, make(chan int)) }
func queue(n int)   { pass(n, make(chan int, 1024)) }

func selectTwo(n int) {
	odd, even := make(chan int), make(chan int)
	m := begin()
	for _, numbers := range []chan int{odd, even} {
		go func() {
			for i := 0; i < (n+1)/2; i++ {
				numbers <- i
			}
		}()
	}
	sum := 0
	for i := 0; i < 2*((n+1)/2); i++ {
		select {
		case number := <-odd:
			sum += number
		case number := <-even:
			sum += number
		}
	}
	m.end(n)
}

// A channel with one place is Go's semaphore.
func semaphore(n int) {
	permits := make(chan struct{}, 1)
	m := begin()
	for i := 0; i < n; i++ {
		permits <- struct{}{}
		<-permits
	}
	m.end(n)
}

func getaddrinfo(n int) {
	var group sync.WaitGroup
	m := begin()
	group.Add(n)
	for i := 0; i < n; i++ {
		go func() {
			if _, err := net.DefaultResolver.LookupHost(context.Background(), "localhost"); err != nil {
				fail(1, err.Error())
			}
			group.Done()
		}()
	}
	group.Wait()
	m.end(n)
}

func main() {
	runtime.GOMAXPROCS(1)
	tests := map[string]func(int){
		"spawn_join": spawnJoin, "spawn_join_seq": spawnJoinSeq, "switch_yield": switchYield,
		"sleepers": sleepers, "sleepers_1m": func(int) { sleepers(1_000_000) },
		"timers": timers, "timers_churn": timersChurn, "getaddrinfo": getaddrinfo,
		"channel": channel, "queue": queue, "select": selectTwo, "semaphore": semaphore,
	}
	if len(os.Args) != 3 {
		fail(2, "usage: go-micro TEST N")
	}
	test := tests[os.Args[1]]
	if test == nil {
		fail(2, fmt.Sprintf("no test %q", os.Args[1]))
	}
	n, err := strconv.Atoi(os.Args[2])
	if err != nil || n < 1 {
		fail(2, fmt.Sprintf("N must be a positive number, not %q", os.Args[2]))
	}
	test(n)
}
