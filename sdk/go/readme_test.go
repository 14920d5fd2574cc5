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

// TestTheProgramOfTheReadmeWorks builds the program of README.md as a reader would, and runs it and
// its tests.
func TestTheProgramOfTheReadmeWorks(t *testing.T) {
	readme := string(readFile(t, "README.md"))
	commands := regexp.MustCompile("(?m)^go mod edit .*$").FindString(readme)
	if !strings.Contains(commands, "=../sidecar-shim/sdk/go") {
		t.Fatal("README.md does not say how to require the module")
	}
	sdk, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.com/title\n\ngo 1.22\n")
	files := regexp.MustCompile("(?s)`(\\w+\\.go)`:\n\n```go\n(package main\n.*?)```").FindAllStringSubmatch(readme, -1)
	if len(files) != 3 {
		t.Fatalf("README.md has %d files", len(files))
	}
	for _, file := range files {
		write(file[1], file[2])
	}
	build := exec.Command("sh", "-ec", strings.ReplaceAll(commands, "../sidecar-shim/sdk/go", sdk)+"\ngo vet .\ngo test -v .\ngo build -o title .")
	build.Dir = dir
	output, err := build.CombinedOutput()
	if err != nil || bytes.Count(output, []byte("--- PASS")) != 2 {
		t.Fatalf("%v: %s", err, output)
	}
	vmi := `{"metadata": {"annotations": {"example.com/title": "R&D"}}}`
	title := exec.Command(filepath.Join(dir, "title"), "--vmi", vmi, "--domain", "<domain><name>vm1</name></domain>")
	var stderr bytes.Buffer
	title.Stderr = &stderr
	output, err = title.Output()
	if want := "<domain><name>vm1</name><title>R&amp;D</title></domain>"; err != nil || string(output) != want {
		t.Errorf("%s, %v: %s", output, err, stderr.String())
	}
}
