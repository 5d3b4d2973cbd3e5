// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tour

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// paper is a stage for pipes and logs: what is done, then a line now and then.
type paper struct {
	out   io.Writer
	every time.Duration
	said  time.Duration // when in the scene the last line was
	done  bool          // the command's words are out
}

// linesOfPaper is the time between two lines.
const linesOfPaper = 2 * time.Second

func (p *paper) Begin(f frame) {
	p.said, p.done = 0, false
	fmt.Fprintf(p.out, "\n%d/%d %s: %s\n$ %s\n", f.step, f.steps, f.subject, f.scene.title, f.scene.do)
	fmt.Fprintf(p.out, "  %s\n", strings.Join(wrap(f.scene.expect, 96), "\n  "))
}

func (p *paper) Show(f frame) {
	if !p.done && (f.output != "" || f.failed != nil) {
		p.done = true
		for _, l := range f.said(96) {
			fmt.Fprintln(p.out, l.String(false))
		}
	}
	if f.elapsed-p.said >= p.every {
		p.said = f.elapsed
		fmt.Fprintln(p.out, f.short())
	}
}

func (p *paper) End(f frame) {
	if f.elapsed-p.said > redraw {
		fmt.Fprintln(p.out, f.short())
	}
	fmt.Fprintf(p.out, "  => %s\n", f.summary())
}

func (p *paper) Leave() {}

// screen is a stage on a terminal: one picture that is drawn again and again.
type screen struct {
	terminal *os.File
	colours  bool
	raw      *term.State // of the keyboard, when it was made raw
	keyboard *os.File
	open     bool
}

// Sequences that every terminal since xterm understands.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the other screen, no cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	restOfLine  = "\x1b[K"
	restOfAll   = "\x1b[J"
)

// openScreen takes the terminal over. Keys come at once and unseen, Ctrl-C among them.
func openScreen(keyboard, terminal *os.File, colours bool) (*screen, error) {
	raw, err := term.MakeRaw(int(keyboard.Fd()))
	if err != nil {
		return nil, fmt.Errorf("the terminal does not let itself be used: %w; try `isthmus-lab tour --plain`", err)
	}
	_, err = terminal.WriteString(enterScreen)
	return &screen{terminal: terminal, colours: colours, raw: raw, keyboard: keyboard, open: true}, err
}

func (s *screen) Begin(f frame) { s.Show(f) }
func (s *screen) End(frame)     {}

// Show asks for the terminal's size each time: a window may have been resized.
func (s *screen) Show(f frame) {
	at := size{width: 80, height: 24}
	if w, h, err := term.GetSize(int(s.terminal.Fd())); err == nil && w > 0 && h > 0 {
		at = size{w, h}
	}
	var b strings.Builder
	b.WriteString(home)
	for i, r := range f.rows(at) {
		if i > 0 && !r.joins {
			b.WriteString(restOfLine + "\r\n")
		}
		b.WriteString(r.String(s.colours))
	}
	b.WriteString(restOfLine + restOfAll)
	_, _ = s.terminal.WriteString(b.String())
}

func (s *screen) Leave() {
	if !s.open {
		return
	}
	s.open = false
	_, _ = s.terminal.WriteString(leaveScreen)
	_ = term.Restore(int(s.keyboard.Fd()), s.raw)
}

// readKeys tells what is pressed until the input ends. A line of a terminal that is not raw counts by its first key.
func readKeys(in io.Reader, keys chan<- key) {
	const ctrlC, ctrlD = 3, 4
	buf := make([]byte, 64)
	for {
		n, err := in.Read(buf)
		for _, b := range buf[:n] {
			switch b {
			case '\r', '\n', ' ':
				keys <- next
			case 'q', 'Q', ctrlC, ctrlD:
				keys <- quit
			}
		}
		if err != nil {
			keys <- quit
			return
		}
	}
}
