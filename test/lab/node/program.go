// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// machines are the names that Go has for what an ELF file says.
var machines = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "386", elf.EM_ARM: "arm",
	elf.EM_RISCV: "riscv64", elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x", elf.EM_LOONGARCH: "loong64",
}

// CheckProgram says why a file cannot be executed on this machine; nil when it can, as far as its
// head tells: an ELF program of this architecture whose loader is there, or a script whose
// interpreter is.
func CheckProgram(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", file)
	}
	if info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not executable: chmod +x %s", file, file)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil // executable and not readable is possible, and fine
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 4)
	_, _ = io.ReadFull(f, head)
	switch {
	case string(head) == elf.ELFMAG:
		return checkELF(f, file)
	case bytes.HasPrefix(head, []byte("#!")):
		return checkScript(f, file)
	}
	return fmt.Errorf("exec format error: %s is neither a linux program nor a script with #! at its begin", file)
}

func checkELF(f *os.File, file string) error {
	parsed, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("exec format error: %s is a damaged program: %w", file, err)
	}
	if built := machines[parsed.Machine]; built != runtime.GOARCH {
		if built == "" {
			built = parsed.Machine.String()
		}
		return fmt.Errorf("exec format error: %s is built for %s and this machine is %s: build it with GOOS=linux GOARCH=%s",
			file, built, runtime.GOARCH, runtime.GOARCH)
	}
	if parsed.Type != elf.ET_EXEC && parsed.Type != elf.ET_DYN {
		return fmt.Errorf("exec format error: %s is %s and no program", file, parsed.Type)
	}
	for _, p := range parsed.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		loader, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		name := string(bytes.TrimRight(loader, "\x00"))
		if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s needs the loader %s, which is not here: link it statically (CGO_ENABLED=0 go build)", file, name)
		}
	}
	return nil
}

func checkScript(f *os.File, file string) error {
	if _, err := f.Seek(2, io.SeekStart); err != nil {
		return err
	}
	line, _ := bufio.NewReader(io.LimitReader(f, 4096)).ReadString('\n')
	words := strings.Fields(line)
	if len(words) == 0 {
		return fmt.Errorf("exec format error: %s names no interpreter behind its #! sign", file)
	}
	if _, err := os.Stat(words[0]); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s needs the interpreter %s, which is not here", file, words[0])
	}
	return nil
}
