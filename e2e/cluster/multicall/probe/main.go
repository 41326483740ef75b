// Probe is what the tests of a cluster run in its pods: each argument list is one small action.
// A failure is written where the kubelet looks for a container's last words.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	terminationLog = "/dev/termination-log"
	patience       = 30 * time.Second
	pause          = 100 * time.Millisecond
)

var actions = map[string]func(arguments []string) (string, error){
	"resolve": func(arguments []string) (string, error) {
		return persist(func() (string, error) { return resolve(arguments[0]) })
	},
	"get": func(arguments []string) (string, error) {
		return persist(func() (string, error) { return get(arguments[0]) })
	},
	"read": func(arguments []string) (string, error) {
		text, err := os.ReadFile(arguments[0])
		return string(text), err
	},
	"write": func(arguments []string) (string, error) {
		return "", os.WriteFile(arguments[0], []byte(arguments[1]), 0o660)
	},
	"serve": func(arguments []string) (string, error) { return "", serve(arguments[0], arguments[1]) },
	"say":   func(arguments []string) (string, error) { return strings.Join(arguments, " "), nil },
	"wait":  func([]string) (string, error) { return wait(), nil },
}

func persist(attempt func() (string, error)) (string, error) {
	deadline := time.Now().Add(patience)
	for {
		answer, err := attempt()
		if err == nil || time.Now().After(deadline) {
			return answer, err
		}
		time.Sleep(pause)
	}
}

func resolve(name string) (string, error) {
	addresses, err := net.LookupHost(name)
	return strings.Join(addresses, " "), err
}

func get(url string) (string, error) {
	response, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func serve(address, answer string) error {
	handler := func(response http.ResponseWriter, _ *http.Request) { fmt.Fprint(response, answer) }
	return http.ListenAndServe(address, http.HandlerFunc(handler))
}

func wait() string {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	return (<-signals).String()
}

func main() {
	answer, err := actions[os.Args[1]](os.Args[2:])
	fmt.Print(answer)
	status, message := 0, answer
	if err != nil {
		status, message = 1, err.Error()
	}
	// Beside a container's own process, as in `kubectl exec`, the last words belong to that process.
	if os.Getpid() == 1 {
		_ = os.WriteFile(terminationLog, []byte(message), 0o644)
	}
	os.Exit(status)
}
