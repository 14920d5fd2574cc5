// Package words is for errors that have words for logs: words that quote nothing from outside, in
// contrast to the text of an error, which may quote a document.
package words

import "errors"

// Harmless are words that quote nothing from outside.
type Harmless string

type worded interface {
	error
	HarmlessWords() Harmless
}

// An Error is an error with words for logs.
type Error struct {
	text     string
	harmless Harmless
}

// New returns an error whose text quotes nothing.
func New(text string) *Error { return &Error{text, Harmless(text)} }

// WithPlace returns an error whose text begins with a place, which may come from a document.
func WithPlace(place, text string) *Error { return &Error{place + ": " + text, Harmless(text)} }

func (e *Error) Error() string { return e.text }

// HarmlessWords returns the words for logs.
func (e *Error) HarmlessWords() Harmless { return e.harmless }

// Of returns the words for logs of the first error that has some, of this one and those that it
// wraps. They are empty if none has.
func Of(err error) Harmless {
	var found worded
	if errors.As(err, &found) {
		return found.HarmlessWords()
	}
	return ""
}
