// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/federation"
)

// access is how the hub is reached: the flags that people know from kubectl.
type access struct {
	// dial is how a command comes to its hub.
	dial                           connection
	kubeconfig, context, namespace string
	timeout                        time.Duration
}

func addAccessFlags(flags *pflag.FlagSet, dial connection) *access {
	a := &access{dial: dial}
	flags.StringVar(&a.kubeconfig, "kubeconfig", "", "the kubeconfig (default: as kubectl finds it)")
	flags.StringVar(&a.context, "context", "", "its context that leads to the hub (default: its current one)")
	flags.StringVarP(&a.namespace, "namespace", "n", "", "tell only of this namespace of the hub (default: of all)")
	flags.DurationVar(&a.timeout, "request-timeout", 10*time.Second, "how long the hub may take in all")
	return a
}

// rights are what a command may send to the hub.
type rights int

const (
	// mayRead is reads, and writes that are only to be tried.
	mayRead rights = iota
	// mayOverride is TrafficOverrides too.
	mayOverride
	// mayRollout is annotations of TrafficRollouts too.
	mayRollout
)

// connection is how a command comes to its hub.
type connection func(*access, rights) (*hub, error)

// hub is the way into the hub, as far as the command's rights go: see guarded.
type hub struct {
	client.Client
	// where is the context and the server, for messages.
	where string
	// namespace of the kubeconfig's context, for objects in files that name none.
	namespace string
	// user is the kubeconfig's name of the credentials, for an API server that does not say whose they are.
	user string
	now  func() time.Time
}

func (a *access) config() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = a.kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: a.context})
}

// connect connects to the hub in a way that can change no more than the command may.
func (a *access) connect(may rights) (*hub, error) {
	config := a.config()
	cfg, err := config.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("no way to the hub: %w; name it with --kubeconfig and --context", err)
	}
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.Burst, cfg.UserAgent = 50, 100, "isthmus"
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return guarded{next, may} })
	h := &hub{where: cfg.Host, user: a.user(config), now: time.Now}
	if a.context != "" {
		h.where = "context " + a.context + " (" + cfg.Host + ")"
	}
	if h.namespace, _, err = config.Namespace(); err != nil {
		return nil, err
	}
	if a.namespace != "" {
		h.namespace = a.namespace
	}
	dryRun := may == mayRead
	c, err := client.New(cfg, client.Options{Scheme: newScheme(), DryRun: &dryRun})
	if err != nil {
		return nil, fmt.Errorf("no way to the hub: %w", err)
	}
	// A field that was mistyped, or that an older hub lacks, would be dropped without a word.
	h.Client = client.WithFieldValidation(c, metav1.FieldValidationStrict)
	return h, nil
}

// onHub does something with the hub, with these rights and within the time that the hub may take in all.
func (a *access) onHub(cmd *cobra.Command, may rights, do func(context.Context, *hub) error) error {
	h, err := a.dial(a, may)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
	defer cancel()
	return do(ctx, h)
}

// onRecords does something with what the hub says: all, or only lists of these names.
func (a *access) onRecords(cmd *cobra.Command, may rights, only []string, do func(context.Context, *hub, federation.Records) error) error {
	return a.onHub(cmd, may, func(ctx context.Context, h *hub) error {
		records, err := h.records(ctx, cmd.ErrOrStderr(), only...)
		if err != nil {
			return err
		}
		return do(ctx, h, records)
	})
}

// tellOf is onRecords for who only tells of what they say.
func (a *access) tellOf(cmd *cobra.Command, tell func(federation.Records) error, only ...string) error {
	return a.onRecords(cmd, mayRead, only, func(_ context.Context, _ *hub, records federation.Records) error { return tell(records) })
}

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme, gatewayv1.Install, mcsv1beta1.Install} {
		utilruntime.Must(add(s))
	}
	return s
}

// user is the kubeconfig's name of the credentials; empty where there is none, as in a pod.
func (a *access) user(config clientcmd.ClientConfig) string {
	raw, err := config.RawConfig()
	if err != nil {
		return ""
	}
	if chosen := raw.Contexts[cmp.Or(a.context, raw.CurrentContext)]; chosen != nil {
		return chosen.AuthInfo
	}
	return ""
}

// guarded lets through what cannot change anything: reads, writes of which the API server is told that they are to be tried
// only, and the question who asks; and TrafficOverrides, or what TrafficRollouts are told, for who may. Whatever else this program might come to do by mistake
// ends here.
type guarded struct {
	next http.RoundTripper
	may  rights
}

// RoundTrip implements http.RoundTripper.
func (g guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	reads := req.Method == http.MethodGet || req.Method == http.MethodHead
	tries := slices.Equal(req.URL.Query()["dryRun"], []string{"All"})
	asks := req.Method == http.MethodPost && strings.HasSuffix(req.URL.Path, whoAmI)
	says := g.may == mayRollout && req.Method == http.MethodPatch && isRollout(req.URL.Path)
	if reads || tries || asks || says || g.may == mayOverride && isOverride(req.URL.Path) {
		return g.next.RoundTrip(req)
	}
	return nil, fmt.Errorf("refused to send %s %s: this command does not change that", req.Method, req.URL.Path)
}

const (
	whoAmI        = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
	overridesPath = "/apis/isthmus.dev/v1alpha1/trafficoverrides"
)

// isOverride tells whether a path is of one TrafficOverride, or the one to create them at; not of a status.
func isOverride(path string) bool {
	_, name, found := strings.Cut(path, overridesPath)
	return found && (name == "" || strings.HasPrefix(name, "/") && strings.Count(name, "/") == 1 && name != "/")
}

// isRollout tells whether a path is of one TrafficRollout; not of its status.
func isRollout(path string) bool {
	_, rest, found := strings.Cut(path, "/apis/isthmus.dev/v1alpha1/namespaces/")
	parts := strings.Split(rest, "/")
	return found && len(parts) == 3 && parts[1] == "trafficrollouts" && parts[0] != "" && parts[2] != ""
}

// explain says what keeps the hub's objects from being read, and what to do.
func (h *hub) explain(err error, what string) error {
	var network *url.Error
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("you may not read the %s of the hub: ask for the rights that docs/reference/cli.md lists: %w", what, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the hub (%s) does not accept your credentials: log in again, or name another --context", h.where)
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
		return fmt.Errorf("%s has no %s: is it the hub? Name it with --context; on a new hub, install Isthmus first", h.where, what)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the hub (%s) did not answer in time: try again, give it longer by --request-timeout, or name another --context", h.where)
	case errors.As(err, &network):
		return fmt.Errorf("the hub (%s) cannot be reached: %w; the members serve without it", h.where, network.Err)
	}
	return fmt.Errorf("reading the %s of the hub (%s): %w", what, h.where, err)
}
