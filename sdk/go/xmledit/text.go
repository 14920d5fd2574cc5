package xmledit

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// space has the characters that are white space in XML.
const space = " \t\r\n"

var (
	textEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#13;")
	// Parsers normalize unescaped white space in attributes to spaces.
	valueEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;",
		"\t", "&#9;", "\n", "&#10;", "\r", "&#13;")
	lineBreaks = strings.NewReplacer("\r\n", "\n", "\r", "\n")
	// In an attribute, a line break is one space.
	spaces = strings.NewReplacer("\r\n", " ", "\r", " ", "\n", " ", "\t", " ")
)

// escapeValue returns the text of an attribute's value between quotes.
func escapeValue(value string, quote byte) string {
	escaped := valueEscaper.Replace(value)
	if quote == '\'' {
		return strings.ReplaceAll(escaped, "'", "&apos;")
	}
	return strings.ReplaceAll(escaped, `"`, "&quot;")
}

// decodeValue returns the value of an attribute from its text between the quotes.
func decodeValue(raw string) string {
	if !strings.ContainsAny(raw, "&\t\r\n") {
		return raw
	}
	return resolve(raw, spaces)
}

// decodeContent returns the text of content without child elements.
func decodeContent(raw string) string {
	if !strings.ContainsAny(raw, "<&\r") {
		return raw
	}
	var text strings.Builder
	for len(raw) > 0 {
		piece := raw[:pieceLength(raw)]
		raw = raw[len(piece):]
		switch {
		case strings.HasPrefix(piece, cdataStart):
			piece = strings.TrimSuffix(strings.TrimPrefix(piece, cdataStart), cdataEnd)
			text.WriteString(lineBreaks.Replace(piece))
		case piece[0] != '<':
			text.WriteString(resolve(piece, lineBreaks))
		}
	}
	return text.String()
}

// hasMarkup reports whether content has a comment or an instruction.
func hasMarkup(raw string) bool {
	for len(raw) > 0 {
		length := pieceLength(raw)
		if raw[0] == '<' && !strings.HasPrefix(raw, cdataStart) {
			return true
		}
		raw = raw[length:]
	}
	return false
}

// lastText returns the text at the end of content, and whether that is all of it.
func lastText(raw string) (tail string, isAll bool) {
	if !strings.Contains(raw, "<") {
		return raw, true
	}
	for tail = raw; strings.Contains(tail, "<"); {
		tail = tail[pieceLength(tail):]
	}
	return tail, false
}

// pieceLength returns the length of the first text, comment, CDATA section or instruction in valid
// content.
func pieceLength(raw string) int {
	end := func(mark string) int { return strings.Index(raw, mark) + len(mark) }
	switch {
	case strings.HasPrefix(raw, cdataStart):
		return end(cdataEnd)
	case strings.HasPrefix(raw, commentStart):
		return len(commentStart) + strings.Index(raw[len(commentStart):], commentEnd) + len(commentEnd)
	case raw[0] == '<':
		return end(instructionEnd)
	}
	if text := strings.IndexByte(raw, '<'); text >= 0 {
		return text
	}
	return len(raw)
}

// resolve replaces references by their characters. Other text is replaced as given.
func resolve(raw string, other *strings.Replacer) string {
	var text strings.Builder
	for {
		at := strings.IndexByte(raw, '&')
		if at < 0 {
			text.WriteString(other.Replace(raw))
			return text.String()
		}
		text.WriteString(other.Replace(raw[:at]))
		char, length := reference(raw[at:])
		text.WriteRune(char)
		raw = raw[at+length:]
	}
}

// reference returns the character of the reference at the beginning of a text, and the reference's
// length, which is 0 if it is not valid.
func reference(text string) (char rune, length int) {
	// The longest useful reference is &#x10FFFF;, but there may be zeros before the digits.
	end := strings.IndexByte(text, ';')
	if end < 0 {
		return 0, 0
	}
	switch name := text[1:end]; {
	case name == "lt":
		char = '<'
	case name == "gt":
		char = '>'
	case name == "amp":
		char = '&'
	case name == "quot":
		char = '"'
	case name == "apos":
		char = '\''
	case strings.HasPrefix(name, "#x"):
		char = number(name[2:], 16)
	case strings.HasPrefix(name, "#"):
		char = number(name[1:], 10)
	}
	if !isChar(char) {
		return 0, 0
	}
	return char, end + 1
}

// number returns a character by its number, or 0.
func number(digits string, base int) rune {
	value, err := strconv.ParseUint(digits, base, 32)
	if err != nil || value > utf8.MaxRune {
		return 0
	}
	return rune(value)
}

// isChar reports whether XML allows a character.
func isChar(char rune) bool {
	switch {
	case char < ' ':
		return char == '\t' || char == '\n' || char == '\r'
	case char < 0xd800:
		return true
	}
	return char >= 0xe000 && char != 0xfffe && char != 0xffff
}

// forbidden returns the position of the first character that XML does not allow, or that is not
// UTF-8. It returns -1 if there is none.
func forbidden(text string) int {
	for at := 0; at < len(text); {
		if c := text[at]; c < utf8.RuneSelf {
			if c < ' ' && !isChar(rune(c)) {
				return at
			}
			at++
			continue
		}
		char, length := utf8.DecodeRuneInString(text[at:])
		if (char == utf8.RuneError && length == 1) || !isChar(char) {
			return at
		}
		at += length
	}
	return -1
}

// isText reports whether XML allows all characters of a text.
func isText(text string) bool { return forbidden(text) < 0 }

// isSpace reports whether a text is white space, or empty.
func isSpace(text string) bool { return strings.Trim(text, space) == "" }
