package cloudinit_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"strings"
	"testing"

	hook "sidecar-shim.example/hook"
	"sidecar-shim.example/hook/cloudinit"
)

// text is a string, or the list of its lines.
type text string

func (t *text) UnmarshalJSON(data []byte) error {
	var lines []string
	if json.Unmarshal(data, &lines) == nil {
		*t = text(strings.Join(lines, "\n"))
		return nil
	}
	return json.Unmarshal(data, (*string)(t))
}

func put(userData string, parts []cloudinit.Part) (string, error) {
	var err error
	for _, part := range parts {
		if userData, err = cloudinit.Put(userData, part); err != nil {
			return "", err
		}
	}
	return userData, nil
}

func TestVectors(t *testing.T) {
	file, err := os.ReadFile("../../vectors/cloud-init.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Cases []struct {
			About, Error, Says string
			UserData           text `json:"user_data"`
			Expect             text
			Parts              []struct {
				Name    string
				Content text
				Replace bool
			}
		}
	}
	if err := json.Unmarshal(file, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Cases) < 80 {
		t.Fatalf("%d cases", len(vectors.Cases))
	}
	for _, test := range vectors.Cases {
		var parts []cloudinit.Part
		for _, part := range test.Parts {
			parts = append(parts, cloudinit.Part{
				Name: part.Name, Content: string(part.Content), Replace: part.Replace,
			})
		}
		got, err := put(string(test.UserData), parts)
		if test.Error != "" {
			isRefusal := errors.Is(err, hook.ErrRefused)
			if err == nil || err.Error() != test.Says || isRefusal != (test.Error == "refused") {
				t.Errorf("%s: the error is %v, a refusal: %t", test.About, err, isRefusal)
			}
			continue
		}
		if err != nil || got != string(test.Expect) {
			t.Errorf("%s: %v\n%s", test.About, err, got)
		}
		if again, err := put(got, parts); err != nil || again != got {
			t.Errorf("%s: the second time: %v\n%s", test.About, err, again)
		}
	}
}

// An independent parser, Go's mime/multipart, finds what was put in.
func TestParts(t *testing.T) {
	pieces := []string{
		"==sidecar-shim-0==", "--==sidecar-shim-0==\n", "\n--==sidecar-shim-1==--\n", "--", "==",
		"Content-Type: text/plain", "From x\n", ":", "\n", "\n\n", "\t", " ", "é", "€", "\r", "\r\n", "\x00",
		"\x7f", "=3D", strings.Repeat("x", 1000), ".\n", "\u2028",
	}
	for seed := int64(0); seed < 300; seed++ {
		chance := rand.New(rand.NewSource(seed))
		texts := make([]string, 4)
		for i := range texts {
			texts[i] = "#!"
			for range chance.Intn(30) {
				texts[i] += pieces[chance.Intn(len(pieces))]
			}
		}
		parts := []cloudinit.Part{}
		for _, i := range chance.Perm(6) {
			name := fmt.Sprint("name-", i%3+1)
			parts = append(parts, cloudinit.Part{Name: name, Content: texts[i%3+1]})
		}
		userData, err := put(texts[0], parts)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		message, err := mail.ReadMessage(strings.NewReader(userData))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		_, params, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		reader := multipart.NewReader(message.Body, params["boundary"])
		found := map[string]string{}
		for {
			part, err := reader.NextRawPart()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			content, err := io.ReadAll(part)
			if err == nil && part.Header.Get("Content-Transfer-Encoding") == "base64" {
				content, err = base64.StdEncoding.DecodeString(string(bytes.ReplaceAll(content, []byte("\n"), nil)))
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			found[part.FileName()] = string(content)
		}
		wanted := map[string]string{"": texts[0], "name-1": texts[1], "name-2": texts[2], "name-3": texts[3]}
		if fmt.Sprintf("%q", found) != fmt.Sprintf("%q", wanted) {
			t.Fatalf("seed %d: found %q in\n%s", seed, found, userData)
		}
	}
}

func TestManyBoundariesInTheUserDataTakeNoMoreTimeThanOthers(t *testing.T) {
	var userData strings.Builder
	userData.WriteString("#!")
	// A search of the whole text for each number would take minutes.
	for number := range 60_000 {
		fmt.Fprintf(&userData, "==sidecar-shim-%d==", number)
	}
	got, err := cloudinit.Put(userData.String(), cloudinit.Part{Name: "a", Content: "#!"})
	if line, _, _ := strings.Cut(got, "\n"); err != nil || !strings.Contains(line, "-60000==") {
		t.Errorf("%v, %s", err, line)
	}
}
