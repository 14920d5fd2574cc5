package hook

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"sidecar-shim.example/hook/internal/loglines"
)

// Version is the version of this module.
const Version = "0.1.0"

// protocolVersion is the supported version of the worker protocol.
const protocolVersion = 1

// A server speaks the worker protocol. One goroutine reads. Each request runs in another goroutine,
// so that the reader can receive its cancellation.
type server struct {
	worker *Worker
	log    *loglines.Target
	level  slog.LevelVar // the shim's
	slots  chan struct{}
	failed chan error // the first write error

	writing sync.Mutex // keeps the frames of a message together
	output  io.Writer

	lock    sync.Mutex
	attach  bool                   // whether the shim accepts attachments
	running map[string]*invocation // by the JSON of its id
}

func newServer(worker *Worker, output io.Writer) *server {
	server := &server{
		worker:  worker,
		slots:   make(chan struct{}, max(worker.Concurrency, 1)),
		failed:  make(chan error, 1),
		output:  output,
		running: make(map[string]*invocation),
	}
	server.level.Set(slog.LevelDebug) // until the shim says which levels it logs
	server.log = &loglines.Target{Level: worker.LogLevel, Write: server.writeLog}
	if worker.LogLevel == nil {
		server.log.Level = &server.level
	}
	return server
}

// serve runs the worker until it exits, and returns the exit status.
func (w *Worker) serve(output io.Writer) int {
	input, err := takeStdin()
	if err != nil {
		return w.fatal(fmt.Sprintf("cannot redirect stdin: %v", err), 1)
	}
	server := newServer(w, output)
	startLog(server.log)
	if err := server.serve(steps{input}); err != nil {
		return w.fatal(err.Error(), 1)
	}
	return 0
}

// serve responds to requests until the end of the input, or until a fatal error.
func (s *server) serve(input io.Reader) error {
	ended := make(chan error, 1)
	go func() { ended <- s.read(bufio.NewReaderSize(input, stepSize)) }()
	select {
	case err := <-ended:
		return err
	case err := <-s.failed:
		return err
	}
}

// read reads requests until the end of the input, and waits until all have a response.
func (s *server) read(input io.Reader) error {
	var answering sync.WaitGroup
	for {
		message, err := readMessage(input)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch {
		case message.id == nil && message.method == "$/cancelRequest":
			s.cancel(message.params)
		case message.id == nil || message.method == "":
			// An unknown notification, or a response, although workers send no requests.
		default:
			// Does not block, unless the shim sends more calls than this worker's concurrency.
			s.slots <- struct{}{}
			answering.Add(1)
			answer := s.accept(message)
			go func() {
				defer answering.Done()
				answer()
				<-s.slots
			}()
		}
	}
	answering.Wait()
	select {
	case err := <-s.failed:
		return err
	default:
		return nil
	}
}

// accept returns the function that responds to a request. It registers the call before the reader
// continues, so that a cancellation finds the call.
func (s *server) accept(request *message) (answer func()) {
	if request.method == "initialize" {
		return func() { s.initialize(request) }
	}
	hook, found := s.worker.hooks[request.method]
	if !found {
		return func() { s.refuse(request.id, errUnknownMethod, nil) }
	}
	call, err := request.call(hook)
	if err != nil {
		shown, _ := callerError(context.Background(), err)
		return func() { s.refuse(request.id, shown, nil) }
	}
	var ctx context.Context
	if call.timeout > 0 {
		ctx, call.cancel = context.WithTimeout(context.Background(), call.timeout)
	} else {
		ctx, call.cancel = context.WithCancel(context.Background())
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	s.running[string(call.id)] = call
	return func() { s.answer(ctx, call) }
}

// initialize responds with the worker's name, version, hooks and capabilities.
func (s *server) initialize(request *message) {
	params, err := object(request.params)
	if err != nil {
		s.refuse(request.id, errNoParams, nil)
		return
	}
	var versions []json.RawMessage
	_ = json.Unmarshal(params["protocolVersions"], &versions) // anything else counts as no versions
	ours := func(version json.RawMessage) bool {
		number, ok := number(version)
		return ok && number == protocolVersion
	}
	if !slices.ContainsFunc(versions, ours) {
		s.refuse(request.id, errNoVersion, map[string][]int{"protocolVersions": {protocolVersion}})
		return
	}
	capabilities, _ := object(params["capabilities"]) // optional
	s.lock.Lock()
	s.attach = string(capabilities["attachments"]) == "true"
	s.lock.Unlock()
	level, _ := text(params["logLevel"])
	s.level.Set(levelOf(level))

	type product struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	type capability struct {
		Attachments bool `json:"attachments"`
		Cancel      bool `json:"cancel"`
		Concurrency int  `json:"concurrency"`
	}
	value, _ := marshal(struct { // cannot fail for these types
		Version      int        `json:"protocolVersion"`
		Worker       product    `json:"worker"`
		SDK          product    `json:"sdk"`
		Hooks        []string   `json:"hooks"`
		Capabilities capability `json:"capabilities"`
	}{
		protocolVersion,
		product{s.worker.name(), s.worker.Version},
		product{"go", Version},
		s.worker.hookNames(),
		capability{Attachments: true, Cancel: true, Concurrency: cap(s.slots)},
	})
	s.write(request.id, response(request.id, "result", value), nil)
}

// cancel cancels the context of a call that still runs.
func (s *server) cancel(params json.RawMessage) {
	members, _ := object(params)
	s.lock.Lock()
	defer s.lock.Unlock()
	if call := s.running[string(members["id"])]; call != nil {
		call.cancelled = true
		call.cancel()
	}
}

// answer runs a hook and responds to its call.
func (s *server) answer(ctx context.Context, call *invocation) {
	result, err := call.run(ctx)
	s.lock.Lock()
	delete(s.running, string(call.id))
	cancelled, attach := call.cancelled, s.attach
	s.lock.Unlock()
	defer call.cancel()
	switch {
	case cancelled:
		s.refuse(call.id, errCancelled, nil)
	case err != nil:
		shown, complete := callerError(ctx, err)
		if !complete {
			logFault(context.WithValue(ctx, invocationKey{}, call), s.log, shown, err)
		}
		s.refuse(call.id, shown, nil)
	default:
		value, attached := call.value(result, attach)
		if attached == nil {
			s.write(call.id, response(call.id, "result", value), nil)
		} else {
			s.write(call.id, response(call.id, "result", value, string(domain)), attached)
		}
	}
}

// value returns the result of a call as JSON, and its attachment.
func (i *invocation) value(result []byte, attach bool) (value, attached []byte) {
	switch {
	case i.hook.subject == nodeName:
		return []byte("{}"), nil
	case result == nil:
		return []byte(`{"unchanged":true}`), nil
	case i.hook.subject == cloudInitData:
		return slices.Concat([]byte(`{"cloudInitData":`), result, []byte(`}`)), nil
	case attach && len(result) > 0:
		return []byte("{}"), result
	}
	text, _ := marshal(string(result)) // cannot fail for a string
	return slices.Concat([]byte(`{"domain":`), text, []byte(`}`)), nil
}

// refuse sends an error response.
func (s *server) refuse(id json.RawMessage, err *failure, data any) {
	s.write(id, errorResponse(id, err, data), nil)
}

// write sends a response, or an error if it does not fit a frame.
func (s *server) write(id json.RawMessage, message, attached []byte) {
	if len(message) > maxFrame || len(attached) > maxFrame {
		message, attached = errorResponse(id, errTooLarge, nil), nil
	}
	s.send(message, attached)
}

// send writes one message. A write error stops the worker, because the shim has gone.
func (s *server) send(message, attached []byte) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := writeFrames(s.output, message, attached); err != nil {
		select {
		case s.failed <- fmt.Errorf("cannot write to stdout: %w", err):
		default: // the worker is stopping already
		}
	}
}
