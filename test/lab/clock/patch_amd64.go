// SPDX-License-Identifier: Apache-2.0

//go:build linux

package clock

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// The functions of the vDSO that tell the wall clock, each with what takes its place: the system call, then the offset
// added to the seconds that it told. The marker stands for the offset.
var replacements = map[string][]byte{
	"__vdso_clock_gettime": join(
		[]byte{0xb8, 228, 0, 0, 0, 0x0f, 0x05}, // mov eax, SYS_clock_gettime; syscall
		[]byte{0x85, 0xff, 0x74, 5},            // test edi, edi; jz add          CLOCK_REALTIME
		[]byte{0x83, 0xff, 5, 0x75, 13},        // cmp edi, 5; jne out            CLOCK_REALTIME_COARSE
		loadOffset,                             // add: mov rcx, offset
		[]byte{0x48, 0x01, 0x0e, 0xc3},         // add [rsi], rcx; out: ret
	),
	"__vdso_gettimeofday": join(
		[]byte{0xb8, 96, 0, 0, 0, 0x0f, 0x05}, // mov eax, SYS_gettimeofday; syscall
		[]byte{0x48, 0x85, 0xff, 0x74, 13},    // test rdi, rdi; jz out
		loadOffset,                            // mov rcx, offset
		[]byte{0x48, 0x01, 0x0f, 0xc3},        // add [rdi], rcx; out: ret
	),
	"__vdso_time": join(
		[]byte{0xb8, 201, 0, 0, 0, 0x0f, 0x05}, // mov eax, SYS_time; syscall
		loadOffset,                             // mov rcx, offset
		[]byte{0x48, 0x01, 0xc8, 0x48, 0x85, 0xff, 0x74, 3}, // add rax, rcx; test rdi, rdi; jz out
		[]byte{0x48, 0x89, 0x07, 0xc3},                      // mov [rdi], rax; out: ret
	),
}

var (
	marker     = []byte{0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef}
	loadOffset = join([]byte{0x48, 0xb9}, marker) // mov rcx, imm64
)

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// jumpLength is that of a jump with a distance of 32 bits.
const jumpLength = 5

// patch returns what is to be written over a vDSO for an offset in seconds: the replacements go into the zeroes
// after the image, and each function begins with a jump to its own. A thread that is in the middle of a function goes
// on in the old one. Without an offset the functions begin as the kernel made them.
func patch(image []byte, seconds int64) ([]change, error) {
	symbols, err := functions(image)
	if err != nil {
		return nil, err
	}
	const alignment = 16
	free := uint64(len(bytes.TrimRight(image, "\x00"))+2*alignment-1) &^ (alignment - 1)
	var stubs, entries []change
	for _, name := range []string{"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time"} {
		at, ok := symbols[name]
		if !ok {
			return nil, fmt.Errorf("the kernel's vDSO has no %s", name)
		}
		if seconds == 0 {
			entries = append(entries, change{at: at, code: image[at : at+jumpLength], entry: true})
			continue
		}
		offset := binary.LittleEndian.AppendUint64(nil, uint64(seconds)) // #nosec G115 -- two's complement is what is added
		stub := bytes.Replace(replacements[name], marker, offset, 1)
		stubs = append(stubs, change{at: free, code: stub})
		distance := int32(int64(free) - int64(at) - jumpLength) // #nosec G115 -- within two pages
		jump := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(distance))
		entries = append(entries, change{at: at, code: jump, entry: true})
		free = (free + uint64(len(stub)) + alignment - 1) &^ (alignment - 1)
	}
	if free > uint64(len(image)) {
		return nil, errors.New("the kernel's vDSO has no room for another clock")
	}
	return append(stubs, entries...), nil // a jump only to what is there
}

func functions(image []byte) (map[string]uint64, error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, fmt.Errorf("the kernel's vDSO: %w", err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return nil, fmt.Errorf("the kernel's vDSO: %w", err)
	}
	found := map[string]uint64{}
	for _, s := range symbols {
		found[s.Name] = s.Value
	}
	return found, nil
}
