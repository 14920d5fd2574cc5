package hook

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFrameVectors(t *testing.T) {
	for _, file := range vectorFiles(t, "frames") {
		var expected struct {
			Payloads []struct{ Text, Hex *string }
			Fault    *string
		}
		if err := json.Unmarshal(readFile(t, file+".json"), &expected); err != nil {
			t.Fatal(err)
		}
		var payloads [][]byte
		for _, payload := range expected.Payloads {
			if payload.Text != nil {
				payloads = append(payloads, []byte(*payload.Text))
				continue
			}
			bytes, err := hex.DecodeString(strings.ReplaceAll(*payload.Hex, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			payloads = append(payloads, bytes)
		}
		stream := readFile(t, file+".bin")
		for split, input := range map[string]io.Reader{
			"whole":        bytes.NewReader(stream),
			"byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
		} {
			t.Run(filepath.Base(file)+" "+split, func(t *testing.T) {
				for _, payload := range payloads {
					if frame, err := readFrame(input); err != nil || !bytes.Equal(frame, payload) {
						t.Fatalf("%q, %v, not %q", frame, err, payload)
					}
				}
				_, err := readFrame(input)
				faults := map[string]string{"length": "invalid frame length", "torn": "stdin ended"}
				switch {
				case expected.Fault == nil && err != io.EOF:
					t.Errorf("%v, not the end", err)
				case expected.Fault != nil && !strings.Contains(err.Error(), faults[*expected.Fault]):
					t.Errorf("%v, not %s", err, *expected.Fault)
				}
			})
		}
	}
}

func TestSessionVectors(t *testing.T) {
	for _, file := range vectorFiles(t, "sessions") {
		var session session
		if err := json.Unmarshal(readFile(t, file+".json"), &session); err != nil {
			t.Fatal(err)
		}
		session.input, session.output = readFile(t, file+".in"), readFile(t, file+".out")
		for split, piece := range map[string]int{"whole": 1 << 20, "byte by byte": 1} {
			t.Run(filepath.Base(file)+" "+split, func(t *testing.T) {
				t.Parallel()
				session.play(t, piece)
			})
		}
	}
}

// A session is a complete run of the vector worker.
type session struct {
	Concurrency   json.Number
	Steps         []struct{ Write, Await int }
	Exit          string
	Stderr        []string
	Faults        bool
	input, output []byte
}

// play writes the input in pieces of this size, and compares the output.
func (s *session) play(t *testing.T, piece int) {
	worker := asWorker(program(t, "vectors", s.Concurrency.String()))
	stdin, stdout, stderr := startPiped(t, worker)
	written, read := 0, 0
	for _, step := range s.Steps {
		for written < step.Write {
			end := min(written+piece, step.Write)
			// A worker that exits after a fault does not read to the end.
			if _, err := stdin.Write(s.input[written:end]); err != nil && s.Exit == "success" {
				t.Fatal(err)
			}
			written = end
		}
		for wanted := s.output[read:step.Await]; read < step.Await; {
			frame, err := readFrame(stdout)
			if err != nil {
				t.Fatalf("%v instead of %q", err, wanted)
			}
			got := s.comparable(t, frame)
			if end := min(read+len(got), step.Await); !bytes.Equal(got, s.output[read:end]) {
				t.Fatalf("got  %q\nwant %q", got, s.output[read:step.Await])
			}
			read += len(got)
		}
	}
	if err := stdin.Close(); err != nil && s.Exit == "success" {
		t.Error(err)
	}
	if rest, err := io.ReadAll(stdout); err != nil || !bytes.Equal(rest, s.output[read:]) {
		t.Errorf("at the end %q, %v, not %q", rest, err, s.output[read:])
	}
	err := worker.Wait()
	if (err == nil) != (s.Exit == "success") {
		t.Errorf("%v, not %s", err, s.Exit)
	}
	if s.Exit == "failure" && !strings.HasPrefix(stderr.String(), "vectors: ") {
		t.Errorf("no reason on stderr: %q", stderr.String())
	}
	for _, text := range s.Stderr {
		if !strings.Contains(stderr.String(), text) {
			t.Errorf("stderr is without %q: %q", text, stderr.String())
		}
	}
}

// comparable returns a frame with the placeholders of protocol/vectors/README.md.
func (s *session) comparable(t *testing.T, message []byte) []byte {
	own := []byte(`"sdk":{"name":"go","version":"` + Version + `"}`)
	message = bytes.Replace(message, own, []byte(`"sdk":{"name":"SDK","version":"VERSION"}`), 1)
	if s.Faults && bytes.Contains(message, []byte(`"method":"$/log"`)) {
		var line struct {
			Params struct{ Level, Message string }
		}
		if err := json.Unmarshal(message, &line); err != nil {
			t.Fatal(err)
		}
		text := line.Params.Message
		if text == "" || strings.Contains(text, "vector fault") != (line.Params.Level == "debug") {
			t.Errorf("a line of level %s says %q", line.Params.Level, text)
		}
		quoted, err := marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		message = bytes.Replace(message, quoted, []byte(`"ANY"`), 1)
	}
	var frame bytes.Buffer
	if err := writeFrames(&frame, message, nil); err != nil {
		t.Fatal(err)
	}
	return frame.Bytes()
}
