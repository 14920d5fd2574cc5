package hook

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheProgramOfTheReadmeWorks builds the program of README.md as a reader would, and runs it.
func TestTheProgramOfTheReadmeWorks(t *testing.T) {
	readme := string(readFile(t, "README.md"))
	program := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindStringSubmatch(readme)
	commands := regexp.MustCompile("(?m)^go mod edit .*$").FindString(readme)
	if program == nil || !strings.Contains(commands, "=../sidecar-shim/sdk/go") {
		t.Fatal("README.md has lost its program, or how to require the module")
	}
	sdk, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"main.go": program[1], "go.mod": "module example.com/title\n\ngo 1.22\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("sh", "-ec", strings.ReplaceAll(commands, "../sidecar-shim/sdk/go", sdk)+"\ngo build -o title .")
	build.Dir = dir
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	vmi := `{"metadata": {"annotations": {"example.com/title": "R&D"}}}`
	title := exec.Command(filepath.Join(dir, "title"), "--vmi", vmi, "--domain", "<domain><name>vm1</name></domain>")
	var stderr bytes.Buffer
	title.Stderr = &stderr
	output, err := title.Output()
	if want := "<domain><name>vm1</name><title>R&amp;D</title></domain>"; err != nil || string(output) != want {
		t.Errorf("%s, %v: %s", output, err, stderr.String())
	}
}
