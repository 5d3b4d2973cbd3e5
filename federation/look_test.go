// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// looks reads "+" as a success, "-" as a failure, "." as no answer and " " as a look that says nothing.
func looks(s Streak, text string) Streak {
	for _, c := range text {
		look := map[rune]Look{'+': {LookOK, "200"}, '-': {LookFailed, "503"}, '.': {LookSilent, "timeout"}, ' ': {Result: LookVoid}}[c]
		s = s.Step(look, 2, 3)
	}
	return s
}

func TestStreakTurnsAfterSoManyInARow(t *testing.T) {
	tests := map[string]struct {
		sight   Seen
		said    string
		doubted bool
	}{
		"":            {SeenNothing, "", false},
		"+":           {SeenNothing, "", false},
		"++":          {SeenWell, "200", false},
		"--":          {SeenNothing, "", true},
		"---":         {SeenIll, "503", true},
		"-- -":        {SeenIll, "503", true},
		"-+-+-":       {SeenNothing, "", true},
		"+--":         {SeenNothing, "", true},
		"+---":        {SeenIll, "503", true},
		"--++":        {SeenWell, "200", false},
		"++--":        {SeenWell, "200", true},
		"++--+--":     {SeenWell, "200", true},
		"++--.":       {SeenIll, "timeout", true},
		"++.--":       {SeenIll, "503", true},
		"++---....":   {SeenIll, "503", true},
		"++---+":      {SeenIll, "503", false},
		"++---+-+":    {SeenIll, "503", false},
		"++---++":     {SeenWell, "200", false},
		"++        ":  {SeenWell, "200", false},
		"++-- ++-- +": {SeenWell, "200", false},
	}
	for text, want := range tests {
		t.Run(text, func(t *testing.T) {
			s := looks(Streak{}, text)
			require.Equal(t, want.sight, s.Sight)
			require.Equal(t, want.said, s.Said)
			require.Equal(t, want.doubted, s.Doubted())
		})
	}
}

// However looks come, a sight turns only after as many in a row as the probe says, and what says nothing changes nothing.
func TestStreakTurnsOnlyOnARow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.SampledFrom([]rune("++--. ")), 0, 40, -1).Draw(t, "looks")
		s, plain := Streak{}, ""
		for _, c := range text {
			before := s
			if s = looks(s, string(c)); c == ' ' {
				require.Equal(t, before, s)
				continue
			}
			plain += strings.ReplaceAll(string(c), ".", "-")
			if s.Sight == before.Sight {
				continue
			}
			if s.Sight == SeenWell {
				require.True(t, strings.HasSuffix(plain, "++"), plain)
			} else {
				require.True(t, strings.HasSuffix(plain, "---"), plain)
			}
		}
	})
}

// A cluster counts against the share for as long as it may be out: one look that succeeds makes no room for another.
func TestDoubtLastsUntilAClusterIsSeenWell(t *testing.T) {
	bad, good := Look{LookFailed, "503"}, Look{LookOK, "200"}
	s := ProbeState{}.StepHub(bad, 2, 2)
	require.True(t, s.Doubted(), "from the first look that fails")
	s = s.StepHub(bad, 2, 2).StepHub(good, 2, 2)
	require.Equal(t, SeenIll, s.Hub.Sight)
	require.True(t, s.Doubted())
	require.False(t, s.StepHub(good, 2, 2).Doubted())
	require.False(t, s.StepPeer(good, 1, 2).Doubted(), "another cluster sees it well")
	require.True(t, s.StepPeer(good, 1, 2).StepPeer(Look{Result: LookVoid}, 1, 2).Doubted(), "nobody can be asked any more")
	require.True(t, ProbeState{Out: true}.Doubted(), "it was taken out before a restart")
	require.False(t, ProbeState{Out: true}.StepHub(good, 1, 1).Doubted())
}

func TestProbeStateForgetsPeersOnceTheHubSeesWell(t *testing.T) {
	bad, good := Look{LookFailed, "503"}, Look{LookOK, "200"}
	s := ProbeState{}
	for range 3 {
		s = s.StepHub(bad, 2, 3).StepPeer(bad, 2, 3)
	}
	require.Equal(t, SeenIll, s.Peer.Sight)
	s = s.StepHub(good, 2, 3)
	require.Equal(t, SeenIll, s.Hub.Sight)
	require.Equal(t, SeenIll, s.Peer.Sight, "one look is not enough to forget what others said")
	s = s.StepHub(good, 2, 3)
	require.Equal(t, SeenWell, s.Hub.Sight)
	require.Equal(t, Streak{}, s.Peer)
}

// A link of the hub that works now and then must not move what another cluster sees well, however much the hub's word is
// worth: not by the look that succeeds, and not before the other has been asked often enough.
func TestTheHubsWordIsNotEnoughAgainstThatOfOthers(t *testing.T) {
	bad, good := Look{LookFailed, "503"}, Look{LookOK, "200"}
	s := ProbeState{}
	judged := func() Finding {
		return Judge(Signals{Seen: true, ReadyEndpoints: 1, Reachable: true,
			Probe: &ProbeSignal{ProbeState: s, Proven: true, HubsWordIsEnough: true}})
	}
	for i := range 12 {
		s = s.StepPeer(good, 5, 3).StepHub(bad, 5, 3)
		require.False(t, judged().Verdict.out(), "after %d looks: %+v", i+1, judged())
	}
	require.Equal(t, reasonHubLinkBad, judged().Reason)
	s = s.StepPeer(good, 5, 3).StepHub(good, 5, 3)
	require.Equal(t, reasonHubLinkBad, judged().Reason)

	s = ProbeState{}
	for range 3 {
		s = s.StepPeer(Look{Result: LookVoid}, 5, 3).StepHub(bad, 5, 3)
	}
	require.Equal(t, Suspected, judged().Verdict, "where nobody can be asked it is enough")
}
