// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// hostSuffix ends every host name that Isthmus makes. ".internal" is reserved for private use, so that no
// resolver outside ever answers for it.
const hostSuffix = ".isthmus.internal"

const (
	// BackendHeader names the service and port that a request between clusters is for. The sending gateway
	// always sets it, so that a client cannot smuggle it in, and the receiving one removes it. A header and not
	// the host, because the application is to see the host that the user asked for.
	BackendHeader = "x-isthmus-backend"
	// ServedByHeader is stamped on the answer by the cluster that gave it.
	ServedByHeader = "x-isthmus-served-by"
)

const (
	istioGroup = "networking.istio.io"
	// hostnameKind is istiod's backendRef kind for a host name of its registry; it is looked up in the
	// namespace of the route.
	hostnameKind = "Hostname"
)

// RemoteHost is the host name under which the other members know a service of one cluster.
func RemoteHost(key ServiceKey, cluster string) string {
	return key.Name + "." + key.Namespace + "." + cluster + hostSuffix
}

// RemoteName is the name of the ServiceEntry and the DestinationRule for RemoteHost. Service, namespace and
// cluster are DNS labels, so the dots keep it unique, and it fits (3 × 63 + 2 of 253).
func RemoteName(key ServiceKey, cluster string) string {
	return key.Name + "." + key.Namespace + "." + cluster
}

// namedHere stands among NamedClusters for the member itself.
const namedHere = ""

// NamedClusters are, by service, the clusters that a generated route names, sorted: by their RemoteHost, and the
// member itself, by its HomeHost or, as the empty name, by a Service of another namespace than the route's. What makes those known and
// permitted in the member has to stay until the route no longer names them.
func NamedClusters(route *gatewayv1.HTTPRoute) map[ServiceKey][]string {
	named := map[ServiceKey][]string{}
	for _, ref := range backendsOf(route) {
		key, cluster, ok := namedCluster(ref, route.Namespace)
		if ok && !slices.Contains(named[key], cluster) {
			named[key] = append(named[key], cluster)
			slices.Sort(named[key])
		}
	}
	return named
}

func namedCluster(ref gatewayv1.BackendObjectReference, namespace string) (ServiceKey, string, bool) {
	if cmp.Or(deref(ref.Kind), "Service") == "Service" && deref(ref.Group) == "" {
		key := ServiceKey{Namespace: string(deref(ref.Namespace)), Name: string(ref.Name)}
		return key, namedHere, key.Namespace != "" && key.Namespace != namespace
	}
	host, ours := strings.CutSuffix(string(ref.Name), hostSuffix)
	parts := strings.Split(host, ".")
	if len(parts) == 4 && parts[3] == homeLabel {
		parts = parts[:3]
	}
	if !ours || len(parts) != 3 || deref(ref.Kind) != hostnameKind {
		return ServiceKey{}, "", false
	}
	return ServiceKey{Name: parts[0], Namespace: parts[1]}, parts[2], true
}

// unresolvedHost is a name that no ServiceEntry can have: its share answers 500, as the Gateway API demands of a
// backend that cannot be resolved.
func unresolvedHost(key ServiceKey) gatewayv1.ObjectName {
	return gatewayv1.ObjectName(key.Name + "." + key.Namespace + ".isthmus.invalid")
}

// backendValue is the value of BackendHeader for one port of a service.
func backendValue(key ServiceKey, port int32) string {
	return key.String() + ":" + strconv.Itoa(int(port))
}

// remoteBackend is a service of one cluster, as another member reaches it.
type remoteBackend struct {
	key     ServiceKey
	cluster Member
	// fallbacks are the other clusters that serve it, in the order of preference: the proxy goes there by
	// itself when the cluster's gateway fails, without waiting for the hub.
	fallbacks []Member
	ports     []mcsv1beta1.ServicePort
}

// serviceEntry makes the backend a host: its first endpoint is the gateway of the cluster itself, the lower
// priorities are the others'.
func (b remoteBackend) serviceEntry(namespace string) *networkingv1.ServiceEntry {
	entry := &networkingv1.ServiceEntry{
		TypeMeta:   metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "ServiceEntry"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: RemoteName(b.key, b.cluster.Name)},
	}
	entry.Spec.Hosts = []string{RemoteHost(b.key, b.cluster.Name)}
	entry.Spec.Location = networkingapi.ServiceEntry_MESH_INTERNAL
	entry.Spec.Resolution = networkingapi.ServiceEntry_STATIC
	for _, m := range b.reachable() {
		if !m.EastWest.IsIP() {
			// Load balancers of EKS have only a host name.
			entry.Spec.Resolution = networkingapi.ServiceEntry_DNS
		}
		entry.Spec.Endpoints = append(entry.Spec.Endpoints, b.endpoint(m))
	}
	for _, p := range b.ports {
		entry.Spec.Ports = append(entry.Spec.Ports, &networkingapi.ServicePort{
			Number: uint32(p.Port), Name: portName(p), Protocol: istioProtocol(p), TargetPort: b.targetPort()})
	}
	return entry
}

// targetPort of the gateway; the usual one while the cluster has lost its address and only the fallbacks serve.
func (b remoteBackend) targetPort() uint32 {
	return uint32(cmp.Or(b.cluster.EastWest.Port, EastWestPort))
}

func (b remoteBackend) endpoint(m Member) *networkingapi.WorkloadEntry {
	e := &networkingapi.WorkloadEntry{Address: m.EastWest.Host, Labels: map[string]string{v1alpha1.LabelCluster: m.Name}}
	if uint32(m.EastWest.Port) == b.targetPort() {
		return e
	}
	e.Ports = map[string]uint32{}
	for _, p := range b.ports {
		e.Ports[portName(p)] = uint32(m.EastWest.Port)
	}
	return e
}

// reachable is the cluster and its fallbacks, as far as their addresses are known.
func (b remoteBackend) reachable() []Member {
	return slices.DeleteFunc(append([]Member{b.cluster}, b.fallbacks...), func(m Member) bool { return m.EastWest.IsZero() })
}

// destinationRule says how the hop is made: mutual TLS to gateways of the clusterset and nobody else, and the
// order of the endpoints. The "host" that outlier detection ejects is a whole cluster, so two failed connections
// are enough to look elsewhere for a few seconds, but no single application error ever is: an answer that breaks off
// counts like a failed connection, so one would not do.
func (b remoteBackend) destinationRule(namespace string) *networkingv1.DestinationRule {
	rule := &networkingv1.DestinationRule{
		TypeMeta:   metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "DestinationRule"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: RemoteName(b.key, b.cluster.Name)},
	}
	var identities []string
	for _, m := range b.reachable() {
		if id := "spiffe://" + m.eastWestIdentity(); !slices.Contains(identities, id) {
			identities = append(identities, id)
		}
	}
	slices.Sort(identities)
	rule.Spec.Host = RemoteHost(b.key, b.cluster.Name)
	tls := func(port int32) *networkingapi.ClientTLSSettings {
		return &networkingapi.ClientTLSSettings{Mode: networkingapi.ClientTLSSettings_ISTIO_MUTUAL,
			Sni: serverName(b.key, port), SubjectAltNames: identities}
	}
	rule.Spec.TrafficPolicy = &networkingapi.TrafficPolicy{
		Tls:              tls(b.ports[0].Port),
		ConnectionPool:   remoteConnectionPool(),
		OutlierDetection: remoteOutlierDetection(),
		LoadBalancer: &networkingapi.LoadBalancerSettings{LocalityLbSetting: &networkingapi.LocalityLoadBalancerSetting{
			Enabled: wrapperspb.Bool(true), FailoverPriority: []string{v1alpha1.LabelCluster + "=" + b.cluster.Name}}},
	}
	for _, p := range b.ports[1:] {
		// A port's settings stand alone: what they leave out is not taken from those above.
		rule.Spec.TrafficPolicy.PortLevelSettings = append(rule.Spec.TrafficPolicy.PortLevelSettings,
			&networkingapi.TrafficPolicy_PortTrafficPolicy{
				Port: &networkingapi.PortSelector{Number: uint32(p.Port)}, Tls: tls(p.Port),
				ConnectionPool: rule.Spec.TrafficPolicy.ConnectionPool, OutlierDetection: rule.Spec.TrafficPolicy.OutlierDetection,
				LoadBalancer: rule.Spec.TrafficPolicy.LoadBalancer})
	}
	return rule
}

// serverName is what a gateway asks for (TLS, server name indication) when it connects for a port of a service: it
// says what the requests on the connection are for, where they do not say it themselves.
func serverName(key ServiceKey, port int32) string {
	return strconv.Itoa(int(port)) + "." + key.Name + "." + key.Namespace + hostSuffix
}

func remoteConnectionPool() *networkingapi.ConnectionPoolSettings {
	return &networkingapi.ConnectionPoolSettings{
		Tcp: &networkingapi.ConnectionPoolSettings_TCPSettings{
			ConnectTimeout: durationpb.New(time.Second),
			TcpKeepalive: &networkingapi.ConnectionPoolSettings_TCPSettings_TcpKeepalive{
				Time: durationpb.New(2 * time.Second), Interval: durationpb.New(time.Second), Probes: 2},
		},
		Http: &networkingapi.ConnectionPoolSettings_HTTPSettings{
			// One connection carries many requests, so a cut link is noticed once and not once a connection.
			H2UpgradePolicy: networkingapi.ConnectionPoolSettings_HTTPSettings_UPGRADE,
			// A ping twice a second that is not answered within a second, or anything else that arrives, ends the
			// connection, and its requests go elsewhere as far as they may: no stall above two seconds. TCP's own
			// keepalive does not ask while data waits to be acknowledged, which is when it matters.
			Http2KeepAlive: &networkingapi.ConnectionPoolSettings_HTTPSettings_ConnectionKeepalive{
				Interval: durationpb.New(500 * time.Millisecond), Timeout: durationpb.New(time.Second)},
		},
	}
}

func remoteOutlierDetection() *networkingapi.OutlierDetection {
	return &networkingapi.OutlierDetection{
		SplitExternalLocalOriginErrors: true,
		ConsecutiveLocalOriginFailures: wrapperspb.UInt32(2),
		ConsecutiveGatewayErrors:       wrapperspb.UInt32(5),
		Consecutive_5XxErrors:          wrapperspb.UInt32(0),
		Interval:                       durationpb.New(time.Second),
		BaseEjectionTime:               durationpb.New(3 * time.Second),
		// The default of 10 % would eject none of two.
		MaxEjectionPercent: 100,
		// With all of them ejected, as when an application fails everywhere, they are tried all the same.
		MinHealthPercent: 1,
	}
}

// portName is a name that istiod accepts for a port; a single port of a Service may have none.
func portName(p mcsv1beta1.ServicePort) string {
	if p.Name != "" {
		return p.Name
	}
	return "http-" + strconv.Itoa(int(p.Port))
}

// istioProtocol decides the protocol of the hop as Istio does for a Service: appProtocol, then the prefix of
// the port's name, then HTTP, since only routes lead here.
func istioProtocol(p mcsv1beta1.ServicePort) string {
	app := strings.ToLower(deref(p.AppProtocol))
	if app == "" && p.Name != "grpc-web" && !strings.HasPrefix(p.Name, "grpc-web-") {
		app, _, _ = strings.Cut(p.Name, "-")
	}
	switch app {
	case "kubernetes.io/h2c", "http2", "h2c":
		return "HTTP2"
	case "grpc":
		return "GRPC"
	default:
		return "HTTP"
	}
}
