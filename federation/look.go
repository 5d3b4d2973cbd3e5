// SPDX-License-Identifier: Apache-2.0

package federation

// Seen is what the looks from one side have come to.
type Seen string

const (
	// SeenNothing yet: too few looks, or none.
	SeenNothing Seen = ""
	// SeenWell after `rise` successes in a row.
	SeenWell Seen = "Well"
	// SeenIll after `fall` failures in a row.
	SeenIll Seen = "Ill"
)

// LookResult is what became of one look.
type LookResult string

const (
	// LookOK is the expected answer from the cluster that was asked.
	LookOK LookResult = "ok"
	// LookFailed is another answer, or that of another cluster.
	LookFailed LookResult = "failed"
	// LookSilent is no answer.
	LookSilent LookResult = "silent"
	// LookVoid says nothing: the gateway that was asked does not have the probe's route yet, or could not be reached to ask.
	LookVoid LookResult = "void"
	// LookEmpty is an answer without a value, of a metric.
	LookEmpty LookResult = "empty"
)

// Look is one look at a service in a cluster.
type Look struct {
	Result LookResult
	// Said is the answer in a word or two, such as "503" or "timeout".
	Said string
}

// Streak is what has been seen from one side, and how many of the newest looks contradict it.
type Streak struct {
	Sight Seen
	// Said is the answer by which Sight came about. Later answers do not change it, or whoever reads it would see it change
	// with each look.
	Said string
	// Silent is whether that was no answer at all.
	Silent bool
	// Against counts the newest looks, in a row, that say the opposite of Sight; before there is one, those that say the
	// same as the newest, negative for failures.
	Against int
}

// Step takes in a look.
//
//	sight   | look | becomes
//	nothing | good | well after `rise` in a row
//	nothing | bad  | ill after `fall` in a row
//	well    | bad  | ill after `fall` in a row
//	ill     | good | well after `rise` in a row
//	any     | void | as it was
func (s Streak) Step(look Look, rise, fall int32) Streak {
	if look.Result == LookVoid {
		return s
	}
	good := look.Result == LookOK
	switch {
	case s.Sight == SeenWell && good, s.Sight == SeenIll && !good:
		s.Against = 0
		return s
	case s.Sight == SeenNothing && good != (s.Against > 0):
		s.Against = 0
	}
	if good || s.Sight != SeenNothing {
		s.Against++
	} else {
		s.Against--
	}
	switch {
	case good && s.Against >= int(max(1, rise)):
		return Streak{Sight: SeenWell, Said: look.Said}
	case !good && max(s.Against, -s.Against) >= int(max(1, fall)):
		return Streak{Sight: SeenIll, Said: look.Said, Silent: look.Result == LookSilent}
	}
	return s
}

// Doubted tells whether the newest look failed.
func (s Streak) Doubted() bool {
	switch s.Sight {
	case SeenWell:
		return s.Against > 0
	case SeenIll:
		return s.Against == 0
	default:
		return s.Against < 0
	}
}

// Unsettled tells whether the next look is wanted soon: the newest one contradicts what is known, or nothing is known.
func (s Streak) Unsettled() bool { return s.Sight == SeenNothing || s.Against != 0 }

// ProbeState is what is known, by looking, of one service in one cluster.
type ProbeState struct {
	// Hub is the look of the hub at the cluster's own gateway.
	Hub Streak
	// Peer is the look through other clusters' gateways, taken while the hub's own fails.
	Peer Streak
	// Unheard is whether the newest look through another cluster said nothing. Then what was heard before may be old.
	Unheard bool
	// Out is whether an earlier process took the cluster out on suspicion, and left it so.
	Out bool
}

// StepHub takes in a look of the hub's own. When it succeeds nobody else is asked any more, and what was heard of them is
// forgotten, since it would be old when it is needed next. Not so while the hub sees ill: others are asked until it sees
// well, and one look that succeeds must not silence those who contradict it.
func (p ProbeState) StepHub(look Look, rise, fall int32) ProbeState {
	p.Hub = p.Hub.Step(look, rise, fall)
	if look.Result == LookOK && p.Hub.Sight != SeenIll {
		p.Peer = Streak{}
	}
	return p
}

// StepPeer takes in a look through another cluster.
func (p ProbeState) StepPeer(look Look, rise, fall int32) ProbeState {
	p.Peer, p.Unheard = p.Peer.Step(look, rise, fall), look.Result == LookVoid
	return p
}

// Doubted tells whether the guard counts the cluster among those in doubt, unless another cluster sees it well now: from the
// first look that fails, so that a cut link of the hub is seen as one before it moves anything, until it is seen well. One
// look that succeeds takes no cluster back in, and so it makes no room to take another out. One that was taken out before the
// hub restarted is in doubt until it has been looked at.
func (p ProbeState) Doubted() bool {
	doubted := p.Hub.Sight == SeenIll || p.Hub.Doubted() || p.Out && p.Hub.Sight == SeenNothing
	return doubted && (p.Peer.Sight != SeenWell || p.Unheard)
}

// ProbeSignal is what the probes say of one service in one cluster.
type ProbeSignal struct {
	ProbeState
	// Undecided is whether it is not known yet whether there is a probe at all.
	Undecided bool
	// Proven is whether the probe has succeeded in any cluster. Until it has, the fault may be the probe's own.
	Proven bool
	// HubsWordIsEnough is whether the hub may be believed where no other cluster can be asked.
	HubsWordIsEnough bool
	// Held is why the guard lets nothing be moved on suspicion; empty where it does.
	Held string
}

// speaks tells whether the hub's looks have come to anything that counts.
func (p *ProbeSignal) speaks() bool { return p != nil && p.Proven && p.Hub.Sight != SeenNothing }

func (p *ProbeSignal) hubSaysIll() bool { return p.speaks() && p.Hub.Sight == SeenIll }

// suspects tells whether the service is to be taken out as far as probes can say, before the guard is asked. The hub's
// word is enough only where nobody else has been heard: those who answer, and have not yet come to anything, are waited for.
func (p *ProbeSignal) suspects() bool {
	return p.hubSaysIll() && (p.Peer.Sight == SeenIll || p.Peer.Sight == SeenNothing && p.Peer.Against == 0 && p.HubsWordIsEnough)
}

// said is who saw what.
func (p *ProbeSignal) said() string {
	text := "from the hub: " + p.Hub.Said
	if p.Peer.Sight != SeenNothing {
		text += "; " + p.Peer.Said
	}
	return text
}
