// Task is what the containers of the tests run.
package main

import (
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const mark = "/healthy" // is there while the container is healthy

func main() {
	command := ""
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	switch command {
	case "check":
		if _, err := os.Stat(mark); err != nil {
			os.Exit(1)
		}
	case "heal":
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			os.Exit(2)
		}
	case "hurt":
		_ = os.Remove(mark)
	case "eat":
		time.Sleep(2 * time.Second)
		for eaten := [][]byte{}; ; {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			eaten = append(eaten, b)
		}
	default:
		name, _ := os.Hostname() // answers nothing if there is none
		go func() {
			_ = http.ListenAndServe(":80", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(name))
			}))
		}()
		end := make(chan os.Signal, 1)
		signal.Notify(end, syscall.SIGTERM)
		<-end
	}
}
