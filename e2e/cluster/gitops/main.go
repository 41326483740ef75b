// Gitops judges resources as GitOps tools do: by kstatus, which Flux uses, or by a Lua script as Argo CD runs it.
// It reads one resource per line, as JSON, and writes one answer per line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

const (
	usage       = "usage: gitops status | gitops lua SCRIPT [PARAMETERS as JSON]"
	longestLine = 16 << 20
	// Argo CD ends a script after this time.
	patience = time.Second
)

type judge func(resource *unstructured.Unstructured) (any, error)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	chosen, err := choose(arguments)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, longestLine)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		resource := &unstructured.Unstructured{}
		if err := resource.UnmarshalJSON(lines.Bytes()); err != nil {
			return err
		}
		answer, err := chosen(resource)
		if err != nil {
			answer = map[string]string{"error": err.Error()}
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func choose(arguments []string) (judge, error) {
	switch {
	case len(arguments) == 1 && arguments[0] == "status":
		return byStatus, nil
	case len(arguments) >= 2 && arguments[0] == "lua":
		script, err := os.ReadFile(arguments[1])
		if err != nil {
			return nil, err
		}
		parameters := map[string]any{}
		if len(arguments) > 2 {
			if err := json.Unmarshal([]byte(arguments[2]), &parameters); err != nil {
				return nil, err
			}
		}
		return byScript(string(script), parameters), nil
	}
	return nil, errors.New(usage)
}

func byStatus(resource *unstructured.Unstructured) (any, error) {
	result, err := status.Compute(resource)
	if err != nil {
		return nil, err
	}
	return map[string]string{"status": result.Status.String(), "message": result.Message}, nil
}

func byScript(script string, parameters map[string]any) judge {
	return func(resource *unstructured.Unstructured) (any, error) {
		state, err := newState()
		if err != nil {
			return nil, err
		}
		defer state.Close()
		limit, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		state.SetContext(limit)
		for name, value := range map[string]any{"obj": resource.Object, "actionParams": parameters} {
			// Through JSON, so that all numbers are Lua's.
			text, err := json.Marshal(value)
			if err != nil {
				return nil, err
			}
			decoded, err := luajson.Decode(state, text)
			if err != nil {
				return nil, err
			}
			state.SetGlobal(name, decoded)
		}
		if err := state.DoString(script); err != nil {
			return nil, err
		}
		text, err := luajson.Encode(state.Get(-1))
		return json.RawMessage(text), err
	}
}

// newState has the libraries that Argo CD gives to scripts: no strings, no files, and of os the time only.
func newState() (*lua.LState, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
	} {
		call := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	state.PreloadModule(lua.OsLibName, func(state *lua.LState) int {
		lua.OpenOs(state)
		full := state.GetGlobal(lua.OsLibName).(*lua.LTable)
		state.SetGlobal(lua.OsLibName, lua.LNil)
		safe := state.NewTable()
		for _, name := range []string{"time", "date"} {
			safe.RawSetString(name, full.RawGetString(name))
		}
		state.Push(safe)
		return 1
	})
	return state, nil
}
