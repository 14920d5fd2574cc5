package hook

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxFrame is the most that a frame holds: 16 MiB - 1, so that its first byte is zero, which no text
// begins with.
const maxFrame = 1<<24 - 1

// stepSize is how much is read from a pipe, or written to it, at once: a quarter of what it holds. With
// all of it, this process would sleep while the shim is at work, and the shim while this is.
const stepSize = 16 << 10

// steps is one end of a pipe that is read and written in steps.
type steps struct{ file *os.File }

func (s steps) Read(into []byte) (int, error) {
	return s.file.Read(into[:min(len(into), stepSize)])
}

func (s steps) Write(all []byte) (written int, err error) {
	for written < len(all) && err == nil {
		var step int
		step, err = s.file.Write(all[written:min(len(all), written+stepSize)])
		written += step
	}
	return written, err
}

// readFrame returns the next frame, or io.EOF where the input ends between two. After any other error
// there is no way back into step.
func readFrame(input io.Reader) ([]byte, error) {
	var header [4]byte
	switch _, err := io.ReadFull(input, header[:]); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("standard input ended inside the length of a frame")
	case err != nil:
		return nil, err
	}
	length := binary.BigEndian.Uint32(header[:])
	if length < 1 || length > maxFrame {
		return nil, fmt.Errorf("% x is not the length of a frame, which holds 1 to %d bytes", header, maxFrame)
	}
	frame := make([]byte, length)
	if read, err := io.ReadFull(input, frame); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("standard input ended after %d of a frame's %d bytes", read, length)
		}
		return nil, err
	}
	return frame, nil
}

// writeFrames writes a message, and behind it what is attached to it, if that is not empty. Both have
// to fit a frame.
func writeFrames(output io.Writer, message, attached []byte) error {
	buffer := make([]byte, 0, 4+len(message)+4+min(len(attached), stepSize))
	buffer = append(binary.BigEndian.AppendUint32(buffer, uint32(len(message))), message...)
	if len(attached) > 0 {
		buffer = binary.BigEndian.AppendUint32(buffer, uint32(len(attached)))
		if len(attached) <= stepSize { // copied, which costs less than a write of its own
			buffer, attached = append(buffer, attached...), nil
		}
	}
	if _, err := output.Write(buffer); err != nil || len(attached) == 0 {
		return err
	}
	_, err := output.Write(attached)
	return err
}
