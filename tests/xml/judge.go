// Prints what encoding/xml says of many documents, as verdicts.rs does for the shim.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
)

func main() {
	input := bufio.NewReader(os.Stdin)
	output := bufio.NewWriter(os.Stdout)
	for {
		var length uint32
		err := binary.Read(input, binary.BigEndian, &length)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		document := make([]byte, length)
		if _, err := io.ReadFull(input, document); err != nil {
			log.Fatal(err)
		}
		if fault := read(document); fault != nil {
			fmt.Fprintf(output, "%q", fault.Error())
		}
		fmt.Fprintln(output)
	}
	if err := output.Flush(); err != nil {
		log.Fatal(err)
	}
}

// read returns the first fault of a document.
func read(document []byte) error {
	decoder := xml.NewDecoder(bytes.NewReader(document))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
