package cloudinit

import (
	"slices"
	"strconv"
	"strings"
)

// The multi-part that this package writes. The number makes the boundary one that no part contains.
const (
	mark    = "==sidecar-shim-"
	head    = "Content-Type: multipart/mixed; boundary=\"" + mark
	headEnd = "==\"\nMIME-Version: 1.0\n\n"

	// How the owner's part begins, which comes first if there is one, and how the parts of hooks
	// begin.
	owner = "Content-Description: user data of the VM's owner\n"
	named = "Content-Disposition: attachment; filename=\""
)

// ownParts returns the parts of a multi-part that this package wrote, and whether it is one.
func ownParts(userData string) ([]string, bool) {
	rest, isOne := strings.CutPrefix(userData, head)
	number, text, _ := strings.Cut(rest, headEnd)
	delimiter := "--" + mark + number + "=="
	text, begins := strings.CutPrefix(text, delimiter+"\n")
	text, ends := strings.CutSuffix(text, "\n"+delimiter+"--\n")
	if !isOne || !begins || !ends {
		return nil, false
	}
	parts := strings.Split(text, "\n"+delimiter+"\n")
	var names []string
	for index, part := range parts {
		if index == 0 && strings.HasPrefix(part, owner) {
			continue
		}
		line, _, _ := strings.Cut(part, "\n")
		name, isNamed := strings.CutPrefix(line, named)
		name, isQuoted := strings.CutSuffix(name, "\"")
		if !isNamed || !isQuoted || !isName(name) || slices.Contains(names, name) {
			return nil, false
		}
		names = append(names, name)
	}
	return parts, multiPart(parts) == userData
}

func multiPart(parts []string) string {
	taken := map[string]bool{}
	for _, part := range parts {
		for _, rest := range strings.Split(part, mark)[1:] {
			taken[leadingDigits(rest)] = true
		}
	}
	number := 0
	for taken[strconv.Itoa(number)] {
		number++
	}
	delimiter := "--" + mark + strconv.Itoa(number) + "=="
	var text strings.Builder
	text.WriteString(head + strconv.Itoa(number) + headEnd)
	for _, part := range parts {
		text.WriteString(delimiter + "\n" + part + "\n")
	}
	text.WriteString(delimiter + "--\n")
	return text.String()
}

func leadingDigits(text string) string {
	return text[:len(text)-len(strings.TrimLeft(text, "0123456789"))]
}
