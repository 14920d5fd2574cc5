// Package cloudinit adds parts of a hook's own to a VM's cloud-init user data.
//
//	part := cloudinit.Part{Name: "example.org-timezone", Content: "#cloud-config\ntimezone: UTC\n"}
//	userData, err := cloudinit.Put(data.UserData, part)
//
// The owner's user data stays as it is, as a part beside the new one. docs/cloud-init.md says how
// cloud-init merges them.
package cloudinit

import (
	"encoding/base64"
	"fmt"
	"strings"

	hook "sidecar-shim.example/hook"
	"sidecar-shim.example/hook/internal/words"
)

// A Part is user data that a hook adds.
type Part struct {
	// Name distinguishes the part from those of other hooks, and may become the name of a file in
	// the guest: 1 to 64 letters, digits, '.', '_' and '-', the first a letter or a digit. cloud-init
	// gives the names part-001 and so on itself.
	Name string
	// Content starts like any user data: with #cloud-config, #!, ….
	Content string
	// Replace makes each key at the top level of a #cloud-config replace the owner's, with all that
	// is below it. Otherwise the part only adds: lists are appended, values that the owner has set
	// stay.
	Replace bool
}

// startings has the types of user data. cloud-init derives them from its start, in any case. If two
// starts begin alike, the longer one comes first.
var startings = []struct{ start, kind string }{
	{"#cloud-config-archive", "text/cloud-config-archive"},
	{"#cloud-config-jsonp", "text/cloud-config-jsonp"},
	{"#cloud-config", "text/cloud-config"},
	{"#cloud-boothook", "text/cloud-boothook"},
	{"#part-handler", "text/part-handler"},
	{"#include-once", "text/x-include-once-url"},
	{"#include", "text/x-include-url"},
	{"## template: jinja", "text/jinja2"},
	{"#!", "text/x-shellscript"},
}

const (
	starts = "#cloud-config, #!, #include, #cloud-boothook, #part-handler or ## template: jinja"
	space  = " \t\n\v\f\r" // cloud-init skips it at the start

	// How cloud-init merges a part into what came before.
	add     = "list(append)+dict(no_replace,recurse_list)"
	replace = "dict(replace)+list()+str()" // cloud-init's default

	// cloud-init takes user data for MIME if it has this text in that many of its first bytes.
	mimeSign       = "mime-version:"
	mimeSignWithin = 4096

	maxName    = 64 // the guest may use it as the name of a file
	base64Line = 76 // as MIME demands
)

var (
	errName = words.New(fmt.Sprintf("the name of a part has 1 to %d letters, digits, '.', '_' and '-', starts with"+
		" a letter or a digit, and is not one of cloud-init's own, such as part-001", maxName))
	errContent = words.New("the content of a part starts with " + starts)
)

// Put returns the user data with this part added, or in place of the part of this name. The error
// is a refusal, which the VM's owner reads, if the user data cannot have parts, and another one if
// the name or the content is invalid.
func Put(userData string, part Part) (string, error) {
	if !isName(part.Name) {
		return "", errName
	}
	kind := kindOf(part.Content)
	if kind == "" {
		return "", errContent
	}
	merge := ""
	if kind == "text/cloud-config" || kind == "text/jinja2" { // no other type is merged by it
		merge = "Merge-Type: " + add + "\n"
		if part.Replace {
			merge = "Merge-Type: " + replace + "\n"
		}
	}
	head := named + part.Name + "\"\n"
	written := head + body(kind, part.Content, merge)

	parts, ok := ownParts(userData)
	if !ok {
		var err error
		if parts, err = ownersPart(userData); err != nil {
			return "", err
		}
	}
	for index, other := range parts {
		if strings.HasPrefix(other, head) {
			parts[index] = written
			return multiPart(parts), nil
		}
	}
	return multiPart(append(parts, written)), nil
}

func isName(name string) bool {
	if name == "" || len(name) > maxName || strings.IndexByte("._-", name[0]) >= 0 {
		return false
	}
	for _, character := range name {
		if !isDigit(character) && !isLetter(character) && !strings.ContainsRune("._-", character) {
			return false
		}
	}
	// In the guest, a script named part-001 would replace the owner's.
	number, reserved := strings.CutPrefix(name, "part-")
	return !reserved || number == "" || leadingDigits(number) != number
}

func isDigit(character rune) bool { return '0' <= character && character <= '9' }

func isLetter(character rune) bool {
	return 'a' <= character && character <= 'z' || 'A' <= character && character <= 'Z'
}

// kindOf returns the type of user data, or "" if cloud-init knows none with this start.
func kindOf(text string) string {
	text = strings.TrimLeft(text, space)
	for _, starting := range startings {
		if len(text) >= len(starting.start) && strings.EqualFold(text[:len(starting.start)], starting.start) {
			return starting.kind
		}
	}
	return ""
}

// body returns a part without its first line.
func body(kind, text, merge string) string {
	head := "Content-Type: " + kind + "; charset=\"utf-8\"\n" + merge
	if isPlain(text) {
		return head + "\n" + text
	}
	// Otherwise cloud-init would not get other characters as they are.
	encoded := base64.StdEncoding.EncodeToString([]byte(text))
	var lines strings.Builder
	for len(encoded) > base64Line {
		lines.WriteString(encoded[:base64Line] + "\n")
		encoded = encoded[base64Line:]
	}
	return head + "Content-Transfer-Encoding: base64\n\n" + lines.String() + encoded
}

func isPlain(text string) bool {
	for i := 0; i < len(text); i++ {
		if (text[i] < ' ' || text[i] > '~') && text[i] != '\n' && text[i] != '\t' {
			return false
		}
	}
	return true
}

func ownersPart(userData string) ([]string, error) {
	// KubeVirt wants user data, so owners who have none write white space.
	if strings.Trim(userData, space) == "" {
		return nil, nil
	}
	if isMIME(userData) {
		return []string{owner + userData}, nil // its headers become those of the part
	}
	if strings.HasPrefix(userData, "\x1f\u008b") || strings.HasPrefix(userData, "\x1f\ufffd") {
		return nil, refused("it is compressed, and KubeVirt damages compressed user data when it passes" +
			" it to a hook; provide it uncompressed")
	}
	if strings.HasPrefix(userData, "\ufeff") {
		return nil, refused("it starts with a byte order mark, so cloud-init ignores it; remove the mark")
	}
	kind := kindOf(userData)
	if kind == "" {
		return nil, refused("it is not for cloud-init, so no part can be added; user data for cloud-init" +
			" is MIME or starts with " + starts)
	}
	return []string{owner + body(kind, userData, "")}, nil
}

func isMIME(userData string) bool {
	first := userData[:min(len(userData), mimeSignWithin)]
	if !strings.Contains(strings.ToLower(first), mimeSign) {
		return false
	}
	// Unless the first line is a header, cloud-init takes all of it for the content.
	line, _, _ := strings.Cut(userData, "\n")
	name, _, isField := strings.Cut(line, ":")
	for i := 0; i < len(name); i++ {
		isField = isField && ' ' < name[i] && name[i] <= '~'
	}
	return isField || strings.HasPrefix(line, "From ") || strings.HasPrefix(line, " ") ||
		strings.HasPrefix(line, "\t")
}

func refused(why string) error {
	return hook.Refusef("the VM's cloud-init user data: %s", why)
}
