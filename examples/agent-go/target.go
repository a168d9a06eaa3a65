package main

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
	"unsafe"
)

// The target's socket. dial, read and write have a goroutine each and call back by agent.post: dialled, heard, took,
// isTold run in the agent's.

func (f *flow) dial(target string) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	f.stopDial = cancel
	go func() {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", target)
		f.agent.post <- func() { f.dialled(conn, err) }
	}()
}

func (f *flow) dialled(conn net.Conn, err error) {
	f.stopDial()
	if f.over {
		if err == nil {
			abort(conn)
		}
		return
	}
	var timeout net.Error
	switch {
	case err == nil:
	case errors.Is(err, syscall.ECONNREFUSED):
		f.fail(targetRefused)
		return
	case errors.As(err, &timeout) && timeout.Timeout():
		f.fail(targetTimeout)
		return
	default:
		f.fail(targetUnreachable)
		return
	}
	f.conn = conn.(*net.TCPConn)
	f.reading = true
	go f.read()
	go f.write()
	if f.way != nil {
		f.acknowledge(M_OPEN_ACK)
		if f.lacks {
			f.ask(M_GAP)
		}
	}
}

func (f *flow) read() {
	for buffer := make([]byte, piece); ; {
		n, err := f.conn.Read(buffer)
		if err == io.EOF && f.wasReset() {
			err = syscall.ECONNRESET
		}
		data := append([]byte(nil), buffer[:n]...)
		f.agent.post <- func() { f.heard(data, err) }
		if err != nil {
			return
		}
		if _, on := <-f.more; !on {
			return
		}
	}
}

// wasReset tells a reset from an end: if a write has been told of the reset, read shows an end in order. An empty write
// to a socket that was reset fails, unless we have ended our direction; then no write can have been told.
func (f *flow) wasReset() (was bool) {
	if raw, err := f.conn.SyscallConn(); err == nil && !f.shut.Load() {
		raw.Control(func(fd uintptr) {
			_, err := syscall.Write(int(fd), nil)
			was = (err == syscall.EPIPE || err == syscall.ECONNRESET) && !f.shut.Load()
		})
	}
	return was
}

func (f *flow) write() {
	for now := open; ; {
		var data []byte
		data, now = f.out.take(65536, now)
		if len(data) > 0 {
			n, err := f.conn.Write(data)
			f.agent.post <- func() { f.took(n, err) }
			if err == nil {
				continue
			}
			for now < closed { // what comes now is dropped; the reader has bytes yet
				_, now = f.out.take(1<<30, now)
			}
		}
		switch now {
		case ended:
			f.shut.Store(true)
			f.conn.CloseWrite()
			f.agent.post <- f.isTold
		case closed:
			f.conn.Close()
			return
		case reset:
			f.drain()
			abort(f.conn)
			return
		}
	}
}

// drain waits until the target's machine has all that was written: a reset must not take that away (7.3).
func (f *flow) drain() {
	raw, err := f.conn.SyscallConn()
	for until := time.Now().Add(resetTime); err == nil && time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		var left int32
		raw.Control(func(fd uintptr) {
			syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&left)))
		})
		if left == 0 {
			return
		}
	}
}

func (f *flow) heard(data []byte, err error) {
	if f.over {
		return
	}
	f.reading = false
	f.kept = append(f.kept, data...)
	switch {
	case err == io.EOF:
		f.weEnd = true
	case err != nil:
		f.fail(targetReset)
	}
	f.pump()
}

func (f *flow) took(n int, err error) {
	if f.over {
		return
	}
	f.taken += uint64(n)
	if err != nil && f.weEnd {
		f.fail(targetReset)
	} else if err != nil {
		f.hurry(targetReset)
	} else if f.taken+window-f.limit >= window/2 {
		f.agent.acknowledgeSoon(f)
	}
}

func (f *flow) isTold() {
	f.told = true
	f.pump()
}
