// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"isthmus.dev/isthmus/federation"
)

// Options of a Fleet. The zero value of each field but Scheme and Kinds is usable.
type Options struct {
	// Scheme knows every typed object in Kinds and in what is submitted.
	Scheme *runtime.Scheme
	// Kinds are cached in every member.
	Kinds []Kind
	// QPS and Burst limit the requests to one member; 200 and 400 by default. client-go's own 5 a second would
	// take minutes for a thousand routes.
	QPS   float32
	Burst int
	// RequestTimeout bounds each request but a watch, dialing included; 5 s by default. A list may take six
	// times as long to arrive, once it was answered.
	RequestTimeout time.Duration
	// ProbeInterval is the time between two probes, give or take a fifth; 2 s by default.
	ProbeInterval time.Duration
	// ProbeTimeout bounds one probe; 3 s by default.
	ProbeTimeout time.Duration
	// LostAfter is how many probes in a row fail until the member is Lost; 3 by default.
	LostAfter int
	// Workers is how many writers a member has; 4 by default.
	Workers int
	// Epoch is the leader's epoch, which is stamped on each write; 0 by default.
	Epoch func() int64
	// Clock is the real one by default.
	Clock clock.WithTicker
	// Handlers hear of changes.
	Handlers Handlers
	// WrapClient replaces the client that reads live and writes; tests inject faults by it.
	WrapClient func(member string, c client.Client) client.Client
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
	// Log never receives a credential.
	Log logr.Logger
}

// Kind is one kind that is cached in every member.
type Kind struct {
	// Object is a typed object, or a *metav1.PartialObjectMetadata with its GVK where only metadata is wanted.
	Object client.Object
	// Selector restricts the cache; nil caches all.
	Selector labels.Selector
	// Transform trims objects before they are kept. managedFields are dropped first.
	Transform toolscache.TransformFunc
	// Optional kinds may be missing in a member, which then counts as synced without them. Missing kinds are
	// looked for again, and watched as soon as they appear.
	Optional bool
}

// Handlers are called on the fleet's own goroutines and must not block. Each may be nil.
type Handlers struct {
	// Object hears of each change in a member's caches; old is nil when an object appeared, new when it went.
	// An event may be repeated; it is a reason to look, not a record.
	Object func(member string, old, new client.Object)
	// State hears that Member.State() changed.
	State func(member string)
	// Outcome hears that Member.Outcome(owner) changed.
	Outcome func(member string, owner federation.Owner)
}

// withDefaults fills what was left out.
func (o Options) withDefaults() Options {
	setDefault(&o.QPS, 200)
	setDefault(&o.Burst, 400)
	setDefault(&o.RequestTimeout, 5*time.Second)
	setDefault(&o.ProbeInterval, 2*time.Second)
	setDefault(&o.ProbeTimeout, 3*time.Second)
	setDefault(&o.LostAfter, 3)
	setDefault(&o.Workers, 4)
	if o.Epoch == nil {
		o.Epoch = func() int64 { return 0 }
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Handlers.Object == nil {
		o.Handlers.Object = func(string, client.Object, client.Object) {}
	}
	if o.Handlers.State == nil {
		o.Handlers.State = func(string) {}
	}
	if o.Handlers.Outcome == nil {
		o.Handlers.Outcome = func(string, federation.Owner) {}
	}
	if o.WrapClient == nil {
		o.WrapClient = func(_ string, c client.Client) client.Client { return c }
	}
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
