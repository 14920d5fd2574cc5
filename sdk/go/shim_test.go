package hook

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// A shim is the peer of a worker that runs in the test's process.
type shim struct {
	t      *testing.T
	server *server
	input  *io.PipeWriter
	output *io.PipeReader
	ended  chan error
}

// start starts a worker and initializes it.
func start(t *testing.T, worker *Worker) *shim {
	t.Helper()
	input, toWorker := io.Pipe()
	fromWorker, output := io.Pipe()
	shim := &shim{t: t, input: toWorker, output: fromWorker, ended: make(chan error, 1)}
	shim.server = newServer(worker, output)
	go func() { shim.ended <- shim.server.serve(input) }()
	shim.send(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersions":[1],"capabilities":{"attachments":true}}}`)
	shim.receive()
	return shim
}

// send writes a message and its attachments.
func (s *shim) send(message string, attached ...string) {
	s.t.Helper()
	for _, frame := range append([]string{message}, attached...) {
		if err := writeFrames(s.input, []byte(frame), nil); err != nil {
			s.t.Fatal(err)
		}
	}
}

// define calls onDefineDomain with an attached domain.
func (s *shim) define(id int, vmi, invocation, domain string) {
	s.t.Helper()
	s.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"onDefineDomain","params":{"vmi":%s,"invocation":%s},"attachments":["domain"]}`,
		id, vmi, invocation), domain)
}

// receive reads a message and its attachments.
func (s *shim) receive() (message, attached string) {
	s.t.Helper()
	timer := time.AfterFunc(limit, func() { s.output.CloseWithError(fmt.Errorf("nothing in %v", limit)) })
	defer timer.Stop()
	frame, err := readFrame(s.output)
	if err != nil {
		s.t.Fatal(err)
	}
	if strings.HasSuffix(string(frame), `,"attachments":["domain"]}`) {
		document, err := readFrame(s.output)
		if err != nil {
			s.t.Fatal(err)
		}
		attached = string(document)
	}
	return string(frame), attached
}

// expect expects a message without attachments.
func (s *shim) expect(want string) {
	s.t.Helper()
	if got, attached := s.receive(); got != want || attached != "" {
		s.t.Errorf("got  %s, %q\nwant %s", got, attached, want)
	}
}

// expectError expects an error response to a call.
func (s *shim) expectError(id int, failure *failure) {
	s.t.Helper()
	s.expect(string(errorResponse(json.RawMessage(fmt.Sprint(id)), failure, nil)))
}

// expectFault expects the log line of a fault, and then the error response.
func (s *shim) expectFault(id int, message string, failure *failure) {
	s.t.Helper()
	got, _ := s.receive()
	var line struct {
		Method string
		Params struct {
			Level, Message string
			ID             int
		}
	}
	if err := json.Unmarshal([]byte(got), &line); err != nil {
		s.t.Fatal(err)
	}
	if line.Method != "$/log" || line.Params.Level != "error" || line.Params.ID != id || !strings.Contains(line.Params.Message, message) {
		s.t.Errorf("%s is not the line of call %d with %q", got, id, message)
	}
	if strings.Contains(got, "secret") {
		s.t.Errorf("the line quotes a document: %s", got)
	}
	s.expectError(id, failure)
}

// end closes the worker's input and waits for its exit.
func (s *shim) end() {
	s.t.Helper()
	s.input.Close()
	select {
	case err := <-s.ended:
		if err != nil {
			s.t.Error(err)
		}
	case <-time.After(limit):
		s.t.Fatal("it does not end")
	}
}
