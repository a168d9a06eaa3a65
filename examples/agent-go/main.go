// A small agent for ncfast's tunnel protocol, version 1, written from docs/protocol.md alone. README.md says what it
// leaves out.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	s := settings{targets: map[string]string{}}
	flag.StringVar(&s.id, "agent-id", "", "the token's sub")
	flag.StringVar(&s.tokenFile, "token-file", "", "where the token is; it is read again when it changes")
	flag.Func("hub", "URL of a hub, ws://HOST:PORT/tunnel or wss://; may be said again", func(url string) error {
		s.hubs = append(s.hubs, url)
		return nil
	})
	flag.Func("connector", "NAME=HOST:PORT of a target; may be said again", func(text string) error {
		name, target, found := strings.Cut(text, "=")
		if !found || !nameForm.MatchString(name) {
			return fmt.Errorf("not NAME=HOST:PORT")
		}
		s.targets[name] = target
		return nil
	})
	flag.Parse()
	if len(s.hubs) == 0 || s.id == "" || s.tokenFile == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	agent := newAgent(s)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		log.Printf("%v", <-signals)
		done := make(chan struct{})
		agent.post <- func() { agent.goAway(done) }
		<-done
		os.Exit(0)
	}()
	agent.run()
}
