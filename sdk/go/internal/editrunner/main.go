// Does the edits of sdk/vectors/random_edits.py, which describes its input and output.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"sidecar-shim.example/hook/internal/xmlcases"
	"sidecar-shim.example/hook/xmledit"
)

// An answer is a line of output.
type answer struct {
	Document *string `json:"document,omitempty"`
	Error    string  `json:"error,omitempty"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "editrunner: %v\n", err)
		os.Exit(1)
	}
}

func run(input io.Reader, output io.Writer) error {
	cases := json.NewDecoder(input)
	buffer := bufio.NewWriter(output)
	answers := json.NewEncoder(buffer)
	for {
		var next xmlcases.Case
		err := cases.Decode(&next)
		if errors.Is(err, io.EOF) {
			return buffer.Flush()
		}
		if err != nil {
			return err
		}
		var answer answer
		if changed, err := edit(&next); err != nil {
			answer.Error = err.Error()
		} else {
			answer.Document = &changed
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
}

func edit(next *xmlcases.Case) (string, error) {
	document, err := xmledit.Parse([]byte(next.Document))
	if err != nil {
		return "", err
	}
	none := func(*xmledit.Document) error { return nil } // Bytes returns it
	if err := next.Apply(document, none); err != nil {
		return "", err
	}
	changed, err := document.Bytes()
	return string(changed), err
}
