package hook

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxFrame is the maximum length of a frame: 16 MiB - 1. The first byte of a frame is therefore
// zero, which distinguishes it from text.
const maxFrame = 1<<24 - 1

// stepSize is the maximum number of bytes per read or write of a pipe: a quarter of its capacity.
// With larger steps, the shim and this process would take turns sleeping instead of working in
// parallel.
const stepSize = 16 << 10

// steps is one end of a pipe that is read and written in small steps.
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

// readFrame returns the next frame, or io.EOF if the input ends between two frames. After any other
// error the stream cannot be resynchronized.
func readFrame(input io.Reader) ([]byte, error) {
	var header [4]byte
	switch _, err := io.ReadFull(input, header[:]); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("stdin ended inside the length of a frame")
	case err != nil:
		return nil, err
	}
	length := binary.BigEndian.Uint32(header[:])
	if length < 1 || length > maxFrame {
		return nil, fmt.Errorf("invalid frame length % x: a frame holds 1 to %d bytes", header, maxFrame)
	}
	frame := make([]byte, length)
	if read, err := io.ReadFull(input, frame); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("stdin ended after %d of a frame's %d bytes", read, length)
		}
		return nil, err
	}
	return frame, nil
}

// writeFrames writes a message and its attachment, if that is not empty. Both must fit a frame.
func writeFrames(output io.Writer, message, attached []byte) error {
	buffer := make([]byte, 0, 4+len(message)+4+min(len(attached), stepSize))
	buffer = append(binary.BigEndian.AppendUint32(buffer, uint32(len(message))), message...)
	if len(attached) > 0 {
		buffer = binary.BigEndian.AppendUint32(buffer, uint32(len(attached)))
		if len(attached) <= stepSize { // copying costs less than a second write
			buffer, attached = append(buffer, attached...), nil
		}
	}
	if _, err := output.Write(buffer); err != nil || len(attached) == 0 {
		return err
	}
	_, err := output.Write(attached)
	return err
}
