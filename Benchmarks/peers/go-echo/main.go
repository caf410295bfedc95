// Evergreen: the Go peer, an echo server on net, one goroutine per connection, on one processor.
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
)

const largest = 64 * 1024

func serve(connection net.Conn) {
	defer connection.Close()
	// Small until a read fills it, so that idle connections are not charged for what only bulk needs.
	buffer := make([]byte, 4096)
	for {
		n, err := connection.Read(buffer)
		if err != nil {
			return
		}
		if _, err := connection.Write(buffer[:n]); err != nil {
			return
		}
		if n == len(buffer) && n < largest {
			buffer = make([]byte, largest)
		}
	}
}

func main() {
	runtime.GOMAXPROCS(1)
	port := "0"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, "go-echo:", err)
		os.Exit(1)
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	for {
		connection, err := listener.Accept() // sets TCP_NODELAY by itself
		if err != nil {
			fmt.Fprintln(os.Stderr, "go-echo:", err)
			os.Exit(1)
		}
		go serve(connection)
	}
}
